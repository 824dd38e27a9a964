import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Fragmenter, FRAGMENT_BYTES } from "../media/fragments.js";
import { CODEC_H264, CODEC_OPUS } from "../media/header.js";
import { epochNow, type PictureOf, type SessionToVideo } from "./messages.js";
import { Receiver } from "./receiver.js";

/** A receiver of one video track, and how often it asked for a keyframe. */
function receiver(): { take: (messages: ArrayBuffer[]) => void; asked: () => number } {
  let asked = 0;
  const port = { postMessage: (): void => undefined } as unknown as MessagePort;
  const receiver = new Receiver(port, { needKeyframe: () => asked++, toPage: () => undefined });
  receiver.begin(0, 1 << 20);
  return { take: (messages) => messages.forEach((message) => receiver.media(message)), asked: () => asked };
}

const small = new Uint8Array(10);
const large = new Uint8Array(3 * FRAGMENT_BYTES);

describe("keyframe requests", () => {
  it("are made once for deltas after a gap", () => {
    const [cutter, { take, asked }] = [new Fragmenter("video", 0), receiver()];
    take(cutter.cut(small, 0, CODEC_H264, true));
    cutter.cut(small, 40, CODEC_H264, false);
    take(cutter.cut(small, 80, CODEC_H264, false));
    take(cutter.cut(small, 120, CODEC_H264, false));
    expect(asked()).toBe(1);
  });

  it("are not made for what is missing before a keyframe that arrives in pieces", () => {
    const [cutter, { take, asked }] = [new Fragmenter("video", 0), receiver()];
    take(cutter.cut(small, 0, CODEC_H264, true));
    cutter.cut(small, 40, CODEC_H264, false);
    take(cutter.cut(large, 80, CODEC_H264, true));
    take(cutter.cut(small, 120, CODEC_H264, false));
    expect(asked()).toBe(0);
  });

  it("are made for a keyframe that is torn", () => {
    const [cutter, { take, asked }] = [new Fragmenter("video", 0), receiver()];
    take(cutter.cut(small, 0, CODEC_H264, true));
    cutter.cut(small, 40, CODEC_H264, false);
    const [first, , last] = cutter.cut(large, 80, CODEC_H264, true);
    if (first && last) take([first, last]);
    expect(asked()).toBe(1);
  });
});

describe("pictures on their way to the decoder", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Pictures every 40 ms, a keyframe first, the last of which is `youngest` ms old; how many go in each message. */
  function messages(count: number, youngest: number): { sizes: number[]; order: number[] } {
    const sent: PictureOf[][] = [];
    const port = { postMessage: (message: SessionToVideo): unknown => message.type === "pictures" && sent.push(message.pictures) } as unknown as MessagePort;
    const receiver = new Receiver(port, { needKeyframe: () => undefined, toPage: () => undefined });
    const last = (count - 1) * 40;
    receiver.begin(last + youngest, 1 << 20);
    const cutter = new Fragmenter("video", 0);
    for (let at = 0; at <= last; at += 40) for (const message of cutter.cut(small, at, CODEC_H264, at === 0)) receiver.media(message);
    vi.advanceTimersByTime(1);
    return { sizes: sent.map((pictures) => pictures.length), order: sent.flat().map((picture) => picture.timestamp / 40) };
  }

  it("go one by one when they are live", () => {
    expect(messages(4, 0).sizes).toEqual([1, 1, 1, 1]);
  });

  it("go together when they are old, the keyframe ahead, and in their order", () => {
    const { sizes, order } = messages(20, 1000);
    expect(sizes).toEqual([1, 8, 8, 3]);
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it("wait for no other once a live one comes", () => {
    // The last seven are younger than 300 ms, or the first of them takes the old ones along.
    expect(messages(12, 20).sizes).toEqual([1, 5, 1, 1, 1, 1, 1, 1]);
  });
});

describe("sound that comes by WebRTC", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Of participant 0 come pictures that take 60 ms, and sound, if any, that takes 20 ms: what is heard when, local ms after the join. */
  function heard(sound: boolean): unknown[] {
    const said: SessionToVideo[] = [];
    const port = { postMessage: (message: SessionToVideo): unknown => message.type === "heard" && said.push(message) } as unknown as MessagePort;
    const receiver = new Receiver(port, { needKeyframe: () => undefined, toPage: () => undefined });
    const joined = epochNow();
    receiver.begin(0, 1 << 20);
    const [pictures, sounds] = [new Fragmenter("video", 0), new Fragmenter("audio", 0)];
    vi.advanceTimersByTime(100);
    for (let at = 100; at <= 500; at += 20) {
      const [packet] = sound ? sounds.cut(small, at - 20, CODEC_OPUS, true) : [];
      const [picture] = pictures.cut(small, at - 60, CODEC_H264, at === 100);
      for (const message of [packet, picture]) if (message) receiver.media(message);
      if (at < 500) vi.advanceTimersByTime(20);
    }
    // Nothing is known of the other one.
    receiver.heardElsewhere([{ participant: 0, ms: 90 }, { participant: 5, ms: 90 }]);
    return said.map((message) => message.type === "heard" && { ...message, timestamp: Math.round(message.timestamp), at: Math.round(message.at - joined) });
  }

  it("is told to the pictures that go with it, by how long it takes itself", () => {
    expect(heard(true)).toEqual([{ type: "heard", participant: 0, timestamp: 500 - 20 - 90, at: 500, elsewhere: true }]);
  });

  it("is taken to come with its pictures if it never came by the WebSocket", () => {
    expect(heard(false)).toEqual([{ type: "heard", participant: 0, timestamp: 500 - 60 - 90, at: 500, elsewhere: true }]);
  });
});
