import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PreparedSocket, type Preparable } from "./prepared-socket.js";

class FakeSocket implements Preparable {
  onclose: ((event: CloseEvent) => void) | null = null;
  closedWith: number | undefined;
  constructor(readonly url: string) {}
  close(code?: number): void {
    this.closedWith = code;
  }
  lose(): void {
    this.onclose?.({} as CloseEvent);
  }
}

let opened: FakeSocket[];
let prepared: PreparedSocket<FakeSocket>;

beforeEach(() => {
  vi.useFakeTimers();
  opened = [];
  prepared = new PreparedSocket((url) => {
    const socket = new FakeSocket(url);
    opened.push(socket);
    return socket;
  });
});
afterEach(() => void vi.useRealTimers());

describe("a connection that is opened ahead", () => {
  it("is used once, for its address", () => {
    prepared.prepare("wss://a/ws/x");
    prepared.prepare("wss://a/ws/x");
    expect(opened).toHaveLength(1);
    expect(prepared.take("wss://a/ws/x")).toBe(opened[0]);
    expect(prepared.take("wss://a/ws/x")).toBe(opened[1]);
    vi.runAllTimers();
    expect(opened.map(({ closedWith }) => closedWith)).toEqual([undefined, undefined]);
  });

  it("is closed for another address, and before the gateway loses patience", () => {
    prepared.prepare("wss://a/ws/x");
    prepared.prepare("wss://a/ws/y");
    expect(opened[0]?.closedWith).toBe(1000);
    expect(prepared.take("wss://a/ws/z").url).toBe("wss://a/ws/z");
    expect(opened[1]?.closedWith).toBe(1000);
    prepared.prepare("wss://a/ws/x");
    vi.advanceTimersByTime(PreparedSocket.KEPT_MS);
    expect(opened[3]?.closedWith).toBe(1000);
    prepared.take("wss://a/ws/x");
    expect(opened).toHaveLength(5);
  });

  it("that was refused or lost is not used", () => {
    prepared.prepare("wss://a/ws/x");
    opened[0]?.lose();
    expect(prepared.take("wss://a/ws/x")).toBe(opened[1]);
  });

  it("that the browser refuses is left to the join", () => {
    const refusing = new PreparedSocket<FakeSocket>(() => {
      throw new Error("blocked");
    });
    refusing.prepare("wss://a/ws/x");
    expect(() => refusing.take("wss://a/ws/x")).toThrow("blocked");
  });
});
