import { describe, expect, it } from "vitest";
import { Acknowledger, SendWindow } from "./acknowledge.js";
import { endsPicture, unbundle, writeMedia } from "./header.js";

/** A bundle as the gateway makes it. */
function bundled(messages: readonly ArrayBuffer[]): ArrayBuffer {
  const head = (length: number): number[] => [length >> 8, length & 255];
  return Uint8Array.from([2, ...messages.flatMap((message) => [...head(message.byteLength), ...new Uint8Array(message)])]).buffer;
}

describe("acknowledging", () => {
  it("happens 50 ms after a message at the latest", () => {
    const acknowledger = new Acknowledger();
    acknowledger.onMessage(100);
    acknowledger.onMessage(140);
    expect(acknowledger.take(149)).toBeUndefined();
    expect(acknowledger.take(150)).toBe(2);
    expect(acknowledger.dueAt()).toBeUndefined();
  });

  it("happens at the latest every 16 messages", () => {
    const acknowledger = new Acknowledger();
    for (let i = 0; i < 15; i++) acknowledger.onMessage(i);
    expect(acknowledger.take(15)).toBeUndefined();
    acknowledger.onMessage(15);
    expect(acknowledger.take(15)).toBe(16);
  });

  it("happens at once after the last message of a picture", () => {
    const acknowledger = new Acknowledger();
    acknowledger.onMessage(100);
    acknowledger.onMessage(101, true);
    expect(acknowledger.take(101)).toBe(2);
    acknowledger.onMessage(102, true);
    expect(acknowledger.dueAt()).toBe(111);
    expect(acknowledger.take(111)).toBe(3);
    acknowledger.onMessage(120);
    expect(acknowledger.dueAt()).toBe(170);
  });

  it("knows which message ends a picture", () => {
    const message = { source: 0, kind: "video", codec: 9, slot: 0, layer: 0, keyframe: false, frameEnd: true, seq: 1, timestamp: 1, fragmentIndex: 0, fragmentCount: 1, payload: new Uint8Array(4) } as const;
    expect(endsPicture(writeMedia(message))).toBe(true);
    expect(endsPicture(writeMedia({ ...message, frameEnd: false }))).toBe(false);
    expect(endsPicture(writeMedia({ ...message, kind: "audio" }))).toBe(false);
    expect(endsPicture(new ArrayBuffer(8))).toBe(false);
  });

  it("takes a bundle apart, and nothing else", () => {
    const picture = { source: 7, kind: "video", codec: 9, slot: 0, layer: 0, keyframe: false, frameEnd: true, seq: 1, timestamp: 1, fragmentIndex: 0, fragmentCount: 1, payload: new Uint8Array([1, 2]) } as const;
    const messages = [writeMedia(picture), writeMedia({ ...picture, kind: "audio", payload: new Uint8Array(300) }), writeMedia({ ...picture, payload: new Uint8Array(0) })];
    const bundle = bundled(messages);
    expect(unbundle(bundle)).toEqual(messages);
    expect(unbundle(writeMedia(picture))).toEqual([writeMedia(picture)]);
    expect(unbundle(new ArrayBuffer(0))).toEqual([new ArrayBuffer(0)]);
    // Cut off anywhere, it has the messages that are whole.
    for (let bytes = 1; bytes < bundle.byteLength; bytes++) {
      const whole = messages.filter((_, i) => bundled(messages.slice(0, i + 1)).byteLength <= bytes);
      expect(unbundle(bundle.slice(0, bytes))).toEqual(whole);
    }
  });

  it("never happens more often than every 10 ms", () => {
    const acknowledger = new Acknowledger();
    for (let i = 0; i < 16; i++) acknowledger.onMessage(0);
    expect(acknowledger.take(0)).toBe(16);
    for (let i = 0; i < 40; i++) acknowledger.onMessage(1);
    expect(acknowledger.take(9)).toBeUndefined();
    expect(acknowledger.dueAt()).toBe(10);
    expect(acknowledger.take(10)).toBe(56);
  });
});

describe("the send window", () => {
  it("stops video when the oldest message is older than 200 ms plus the base delay", () => {
    const window = new SendWindow();
    window.onSent(0, 10);
    window.onAck(1, 40);
    window.onSent(100, 10);
    expect(window.baseDelay(100)).toBe(40);
    expect(window.videoBlocked(340)).toBe(false);
    expect(window.videoBlocked(341)).toBe(true);
    window.onAck(2, 350);
    expect(window.videoBlocked(350)).toBe(false);
  });

  it("lets audio go on for one second more", () => {
    const window = new SendWindow();
    window.onSent(0, 10);
    expect(window.audioBlocked(1200)).toBe(false);
    expect(window.audioBlocked(1201)).toBe(true);
  });

  it("never believes a base delay over 500 ms", () => {
    const window = new SendWindow();
    window.onSent(0, 10);
    window.onAck(1, 3000);
    expect(window.baseDelay(3000)).toBe(500);
  });

  it("forgets the base delay after 30 s", () => {
    const window = new SendWindow();
    window.onSent(0, 1);
    window.onAck(1, 20);
    window.onSent(1000, 1);
    window.onAck(2, 1100);
    expect(window.baseDelay(1100)).toBe(20);
    expect(window.baseDelay(30_021)).toBe(100);
  });

  it("refuses an acknowledgement of what was never sent, and ignores one that goes backwards", () => {
    const window = new SendWindow();
    window.onSent(0, 1);
    window.onSent(0, 1);
    expect(window.onAck(3, 1)).toBe(false);
    expect(window.onAck(2, 1)).toBe(true);
    expect(window.onAck(1, 2)).toBe(true);
    expect(window.oldestAge(10)).toBe(0);
  });

  it("counts bytes in flight over thousands of messages", () => {
    const window = new SendWindow();
    for (let i = 1; i <= 5000; i++) {
      window.onSent(i, 100);
      if (i > 10) window.onAck(i - 10, i);
    }
    expect(window.bytesInFlight).toBe(1000);
    expect(window.oldestAge(5000)).toBe(9);
  });
});
