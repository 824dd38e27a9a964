import { describe, expect, it } from "vitest";
import { SendWatch } from "./send-watch.js";

/** Reads a sender once a second, as the peer does. */
function watch(): { read: (seconds: number, perSecond: { out: number; input: number; expected?: boolean }) => boolean; restart: () => void } {
  const sender = new SendWatch();
  let [now, out, input] = [0, 0, 0];
  return {
    restart: () => sender.restart(),
    read: (seconds, each) => {
      let failing = false;
      for (let i = 0; i < seconds; i++) {
        now += 1000;
        out += each.out;
        input += each.input;
        failing = sender.update(out, input, each.expected ?? true, now);
      }
      return failing;
    },
  };
}

describe("a WebRTC sender", () => {
  it("that never gave anything fails after a while, and no sooner", () => {
    const { read } = watch();
    expect(read(6, { out: 0, input: 30 })).toBe(false);
    expect(read(1, { out: 0, input: 30 })).toBe(true);
  });

  it("fails when pictures go in and none comes out any more, and is well again with the next one", () => {
    const { read } = watch();
    expect(read(20, { out: 30, input: 30 })).toBe(false);
    expect(read(7, { out: 0, input: 30 })).toBe(true);
    expect(read(1, { out: 1, input: 30 })).toBe(false);
  });

  it("of a still screen does not fail", () => {
    const { read } = watch();
    read(2, { out: 5, input: 5 });
    expect(read(60, { out: 0, input: 0 })).toBe(false);
  });

  it("does not fail while it is muted, nor at once after that", () => {
    const { read } = watch();
    read(3, { out: 30, input: 30 });
    expect(read(60, { out: 0, input: 0, expected: false })).toBe(false);
    expect(read(5, { out: 0, input: 30 })).toBe(false);
  });

  it("has new patience with a new track", () => {
    const { read, restart } = watch();
    expect(read(8, { out: 0, input: 30 })).toBe(true);
    restart();
    expect(read(6, { out: 0, input: 30 })).toBe(false);
    expect(read(1, { out: 0, input: 30 })).toBe(true);
  });
});
