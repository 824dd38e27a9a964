import { afterEach, describe, expect, it, vi } from "vitest";
import { doubted, refusal, roomAddress, sentence, unreachable } from "./address.js";

const base = "https://call.example:8443/lobby";

describe("a room's address", () => {
  it("is understood in all its forms", () => {
    expect(roomAddress("wss://h:1/ws/team%20a", base)).toEqual({ socketUrl: "wss://h:1/ws/team%20a", room: "team a" });
    expect(roomAddress("https://h/team", base)).toEqual({ socketUrl: "wss://h/ws/team", room: "team" });
    expect(roomAddress("http://h/team?x=1", base)).toEqual({ socketUrl: "ws://h/ws/team", room: "team" });
    expect(roomAddress("Käse & Brot", base)).toEqual({ socketUrl: "wss://call.example:8443/ws/K%C3%A4se%20%26%20Brot", room: "Käse & Brot" });
    expect(roomAddress("wss://h/gate/ws/r", base).socketUrl).toBe("wss://h/gate/ws/r");
  });

  it("with a reserved or too long name is refused", () => {
    for (const input of ["ping", "Version", "whip", "_hidden", "call-7", "a/b", "a?b", "x".repeat(65)]) expect(() => roomAddress(input, base)).toThrow(/name/);
    expect(roomAddress("x".repeat(64), base).room).toHaveLength(64);
  });

  it("without a scheme is refused, and says what is missing", () => {
    for (const input of ["localhost:8443/team", "127.0.0.1:8443/team", "ht tp://x", "host/team"]) expect(() => roomAddress(input, base)).toThrow(/begins with https:/);
    expect(roomAddress("/team", base).room).toBe("team");
    expect(roomAddress("Team: evening", base).room).toBe("Team: evening");
  });

  it("without a room is refused", () => {
    for (const input of ["", "https://h/", "wss://h", "https://h/a/b"]) expect(() => roomAddress(input, base)).toThrow(/room/);
  });
});

describe("an address without an answer", () => {
  it("is named with what to try, but for the page's own gateway", () => {
    expect(unreachable("wss://h:1/ws/a", "other")).toMatch(/https:\/\/h:1\/.*certificate/);
    expect(unreachable("ws://h:1/ws/a", "other")).toMatch(/http:\/\/h:1\/.*https/);
    expect(unreachable("wss://h:1/ws/a", "h:1")).toBe("The gateway at https://h:1/ cannot be reached.");
  });
});

describe("what answers in the place of a WebSocket", () => {
  const answer = (body: string): void => void vi.stubGlobal("fetch", () => Promise.resolve(new Response(body)));
  afterEach(() => void vi.unstubAllGlobals());

  it("is no gateway unless it speaks like one", async () => {
    for (const body of ["<!doctype html>", "", "[]", "null", "{}"]) {
      answer(body);
      expect((await refusal("ws://h:5173/ws/team"))?.message).toBe("What answers at http://h:5173 is no gateway. If that is elsewhere, give the whole address, as https://call.example/team.");
    }
  });

  it("says why it refuses, in a sentence", async () => {
    answer('{"code":"room_full","message":"the room is full: 1 are in it already"}');
    expect(await refusal("ws://h/ws/team")).toMatchObject({ code: "room_full", message: "The room is full: 1 are in it already.", fatal: true });
  });

  it("says nothing if it is a gateway, or nothing answers", async () => {
    answer('{"code":"not_a_websocket","message":"x"}');
    expect(await refusal("ws://h/ws/team")).toBeUndefined();
    vi.stubGlobal("fetch", () => Promise.resolve(new Response("<h1>Bad gateway</h1>", { status: 502 })));
    expect(await refusal("ws://h/ws/team")).toBeUndefined();
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("network")));
    expect(await refusal("ws://h/ws/team")).toBeUndefined();
  });

  it("is asked for its health first, when it may only be slow", async () => {
    const asked: string[] = [];
    const answers = (health: string): void =>
      void vi.stubGlobal("fetch", (url: string) => {
        asked.push(url);
        return Promise.resolve(new Response(url.endsWith("/health") ? health : "<!doctype html>"));
      });
    answers("ok\n");
    expect(await doubted("wss://h/gate/ws/team")).toBeUndefined();
    expect(asked).toEqual(["https://h/gate/health"]);
    answers("<!doctype html>");
    expect((await doubted("wss://h/ws/team"))?.code).toBe("connect_failed");
  });

  it("is a sentence already, now and then", () => {
    expect(["ends here", "Ends here.", "who?", ""].map(sentence)).toEqual(["Ends here.", "Ends here.", "Who?", ""]);
  });
});
