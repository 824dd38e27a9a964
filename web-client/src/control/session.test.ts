import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Backoff } from "./backoff.js";
import { Session, type SessionEvents, type Socket } from "./session.js";

class FakeSocket implements Socket {
  readyState = 0;
  binaryType: BinaryType = "blob";
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  sent: unknown[] = [];
  closedWith: number | undefined;
  send(data: string | ArrayBuffer): void {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }
  close(code?: number): void {
    this.closedWith = code ?? 1005;
  }
  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  types(): unknown[] {
    return this.sent.map((message) => (message instanceof ArrayBuffer ? "media" : (message as { type: string }).type));
  }
}

const joined = { type: "joined", participant: 3, room: "r", fingerprint: "f", resume: "token-1", resumed: false, time_ms: 0, members: [], limits: {}, webrtc: false };

interface Setup {
  session: Session;
  sockets: FakeSocket[];
  log: unknown[];
  last: () => FakeSocket;
}

function setup(random = 0.5, backlog?: () => number): Setup {
  const sockets: FakeSocket[] = [];
  const log: unknown[] = [];
  const events: SessionEvents = {
    joined: (message) => log.push(["joined", message.participant, message.resumed]),
    reconnecting: () => log.push("reconnecting"),
    message: (message) => log.push(message),
    media: (data) => log.push(["media", data.byteLength]),
    acknowledged: () => log.push("acknowledged"),
    closed: (error) => log.push(["closed", error?.code]),
  };
  const session = new Session(
    { name: "Ana", id: "0123456789abcdef", token: "secret", decode: () => ["opus"], random: () => random, openSocket: () => (sockets.push(new FakeSocket()), last()) },
    events,
    backlog,
  );
  const last = (): FakeSocket => {
    const socket = sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  };
  return { session, sockets, log, last };
}

function join(s: Setup): void {
  s.session.start();
  s.last().onopen?.();
  s.last().say(joined);
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("joining", () => {
  it("sends hello, auth and join at once", () => {
    const s = setup();
    s.session.start();
    s.last().onopen?.();
    expect(s.last().types()).toEqual(["hello", "auth", "join"]);
    expect(s.last().sent[2]).toEqual({ type: "join", name: "Ana", id: "0123456789abcdef", decode: ["opus"], transport: "websocket", bundles: true });
    s.last().say(joined);
    expect(s.log).toEqual([["joined", 3, false]]);
  });

  it("does so on a connection that is open already", () => {
    const s = setup();
    const open = new FakeSocket();
    open.readyState = 1;
    s.session.options.openSocket = () => (s.sockets.push(open), open);
    s.session.start();
    expect(open.types()).toEqual(["hello", "auth", "join"]);
    open.say(joined);
    expect(s.log).toEqual([["joined", 3, false]]);
  });

  it("gives up after a few attempts when the gateway was never reached", () => {
    const s = setup();
    s.session.start();
    for (let i = 0; i < 10; i++) {
      s.last().onclose?.({ code: 1006, reason: "" });
      vi.advanceTimersByTime(5000);
    }
    expect(s.log).toEqual([["closed", "connect_failed"]]);
    expect(s.sockets).toHaveLength(1 + Session.FIRST_ATTEMPTS);
  });

  it("does not wait for ever for a server that says nothing", () => {
    const s = setup();
    s.session.start();
    s.last().onopen?.();
    vi.advanceTimersByTime(60_000);
    expect(s.log).toEqual([["closed", "connect_failed"]]);
  });

  it("ends at a fatal error without another attempt", () => {
    for (const code of ["refused", "replaced", "room_full", "unauthorized", "bad_name"]) {
      const s = setup();
      join(s);
      s.last().say({ type: "error", code, message: "No.", fatal: true });
      s.last().onclose?.({ code: 4403, reason: "" });
      vi.advanceTimersByTime(60_000);
      expect(s.log.at(-1)).toEqual(["closed", code]);
      expect(s.sockets).toHaveLength(1);
    }
  });

  it("knows why from the close code alone", () => {
    const s = setup();
    join(s);
    s.last().onclose?.({ code: 4409, reason: "" });
    expect(s.log.at(-1)).toEqual(["closed", "replaced"]);
  });
});

describe("reconnecting", () => {
  it("tries first within 250 ms and resumes", () => {
    const s = setup(0.99);
    join(s);
    s.last().onclose?.({ code: 1006, reason: "" });
    expect(s.log.at(-1)).toBe("reconnecting");
    vi.advanceTimersByTime(250);
    expect(s.sockets).toHaveLength(2);
    s.last().onopen?.();
    expect(s.last().sent.at(-1)).toMatchObject({ type: "join", resume: "token-1" });
    s.last().say({ ...joined, resumed: true, resume: "token-2" });
    expect(s.log.at(-1)).toEqual(["joined", 3, true]);
  });

  it("joins anew when the time to resume is over", () => {
    const s = setup();
    join(s);
    s.last().onclose?.({ code: 1006, reason: "" });
    for (let waited = 0; waited < 12_000; waited += 100) {
      vi.advanceTimersByTime(100);
      if (waited < 11_000) s.last().onclose?.({ code: 1006, reason: "" });
    }
    s.last().onopen?.();
    expect(s.last().sent.at(-1)).toMatchObject({ type: "join" });
    expect(s.last().sent.at(-1)).not.toHaveProperty("resume");
  });

  it("says that the gateway is gone in the end", () => {
    const s = setup();
    join(s);
    for (let i = 0; i < 40; i++) {
      s.last().onclose?.({ code: 1006, reason: "" });
      vi.advanceTimersByTime(6000);
    }
    expect(s.log.at(-1)).toEqual(["closed", "gateway_gone"]);
  });

  it("comes back after a restart of the server", () => {
    const s = setup();
    join(s);
    s.last().say({ type: "error", code: "shutting_down", message: "Back soon.", fatal: true });
    s.last().onclose?.({ code: 1001, reason: "" });
    vi.advanceTimersByTime(250);
    expect(s.sockets).toHaveLength(2);
  });

  it("backs off by 0.5, 1, 2, 4, 4 s, half as much more or less", () => {
    const low = new Backoff(() => 0);
    expect(Array.from({ length: 6 }, () => low.next())).toEqual([0, 250, 500, 1000, 2000, 2000]);
    const high = new Backoff(() => 1);
    expect(Array.from({ length: 6 }, () => high.next())).toEqual([250, 750, 1500, 3000, 6000, 6000]);
  });

  it("counts from nothing on the new connection", () => {
    const s = setup();
    join(s);
    s.session.sendMedia(new ArrayBuffer(10));
    s.last().onclose?.({ code: 1006, reason: "" });
    vi.advanceTimersByTime(250);
    s.last().onopen?.();
    s.last().say(joined);
    expect(s.session.window.bytesInFlight).toBe(0);
    s.last().onmessage?.({ data: new ArrayBuffer(30) });
    vi.advanceTimersByTime(50);
    expect(s.last().sent.at(-1)).toEqual({ type: "ack", media: 1 });
  });
});

describe("keeping alive", () => {
  it("answers pings and measures the round trip", () => {
    const s = setup();
    join(s);
    s.last().say({ type: "ping", t: 42 });
    expect(s.last().sent.at(-1)).toEqual({ type: "pong", t: 42 });
    vi.advanceTimersByTime(Session.PING_MS);
    const ping = s.last().sent.at(-1) as { type: string; t: number };
    expect(ping.type).toBe("ping");
    vi.advanceTimersByTime(30);
    s.last().say({ type: "pong", t: ping.t });
    expect(s.session.rttMs).toBe(30);
  });

  it("closes with 4408 after 15 s of silence and reconnects", () => {
    const s = setup();
    join(s);
    const first = s.last();
    vi.advanceTimersByTime(18_000);
    expect(first.closedWith).toBe(4408);
    expect(s.log).toContain("reconnecting");
    expect(s.sockets.length).toBeGreaterThan(1);
  });

  it("notices a dead connection within 2 s after the network changed", () => {
    const s = setup();
    join(s);
    vi.advanceTimersByTime(100);
    s.session.networkChanged();
    vi.advanceTimersByTime(Session.PROBE_MS);
    expect(s.log.at(-1)).toBe("reconnecting");
  });

  it("goes on when the connection answers after the network changed", () => {
    const s = setup();
    join(s);
    vi.advanceTimersByTime(100);
    s.session.networkChanged();
    vi.advanceTimersByTime(50);
    s.last().say({ type: "pong", t: 100 });
    vi.advanceTimersByTime(Session.PROBE_MS);
    expect(s.log).not.toContain("reconnecting");
  });
});

describe("media", () => {
  it("is acknowledged with the backlog of the decoders", () => {
    const s = setup();
    const session = new Session(s.session.options, s.session.events, () => 120.4);
    session.start();
    s.last().onopen?.();
    s.last().say(joined);
    s.last().onmessage?.({ data: new ArrayBuffer(30) });
    vi.advanceTimersByTime(49);
    expect(s.last().types()).not.toContain("ack");
    vi.advanceTimersByTime(1);
    expect(s.last().sent.at(-1)).toEqual({ type: "ack", media: 1, backlog_ms: 120 });
  });

  it("is not sent before the join", () => {
    const s = setup();
    s.session.start();
    expect(s.session.sendMedia(new ArrayBuffer(5))).toBe(false);
  });

  it("held back because of a backlog goes on when that is gone, though nothing is left to acknowledge", () => {
    let backlog = 500;
    const s = setup(0.5, () => backlog);
    join(s);
    s.last().onmessage?.({ data: new ArrayBuffer(30) });
    vi.advanceTimersByTime(50);
    expect(s.last().sent.at(-1)).toEqual({ type: "ack", media: 1, backlog_ms: 500 });
    backlog = 0;
    s.session.backlogChanged();
    expect(s.last().sent.at(-1)).toEqual({ type: "ack", media: 1 });
    const { length } = s.last().sent;
    s.session.backlogChanged();
    expect(s.last().sent).toHaveLength(length);
  });

  it("acknowledged beyond what was sent ends the connection, not the session", () => {
    const s = setup();
    join(s);
    const first = s.last();
    first.say({ type: "ack", media: 1 });
    expect(first.closedWith).toBe(4400);
    expect(s.log).toContain("reconnecting");
  });
});

describe("leaving", () => {
  it("says bye and closes with 1000", () => {
    const s = setup();
    join(s);
    s.session.leave("done");
    expect(s.last().sent.at(-1)).toEqual({ type: "bye", reason: "done" });
    expect(s.last().closedWith).toBe(1000);
    expect(s.log.at(-1)).toEqual(["closed", undefined]);
    vi.advanceTimersByTime(60_000);
    expect(s.sockets).toHaveLength(1);
  });

  it("hands on what is in a bundle, and counts it as one message", () => {
    const s = setup();
    join(s);
    const bundle = new Uint8Array([2, 0, 3, 1, 0, 0, 0, 2, 1, 0]).buffer;
    s.last().onmessage?.({ data: bundle });
    expect(s.log.slice(-2)).toEqual([["media", 3], ["media", 2]]);
    vi.advanceTimersByTime(50);
    expect(s.last().sent.at(-1)).toEqual({ type: "ack", media: 1 });
  });
});
