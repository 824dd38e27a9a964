import { describe, expect, it } from "vitest";
import { Fragmenter, FRAGMENT_BYTES, Reassembler, type ReceivedFrame } from "./fragments.js";
import { CODEC_H264, CODEC_OPUS, parseMedia, type MediaMessage } from "./header.js";

const bytes = (length: number, seed = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 255);

function parsed(messages: ArrayBuffer[]): MediaMessage[] {
  return messages.map((message) => {
    const found = parseMedia(message);
    if (!found) throw new Error("the fragmenter wrote a message that does not parse");
    return found;
  });
}

function pushAll(reassembler: Reassembler, messages: MediaMessage[]): ReceivedFrame[] {
  return messages.map((message) => reassembler.push(message)).filter((frame) => frame !== undefined);
}

describe("media messages", () => {
  it("have the layout of section 3", () => {
    const [message] = new Fragmenter("video", 3, 0x01020304).cut(bytes(2), 0x0a0b0c0d, CODEC_H264, true);
    expect([...new Uint8Array(message ?? new ArrayBuffer(0))]).toEqual([
      1, 0, 0, 0, 0, 2, 0x30, 1, 9, 3, 0, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d, 0, 1, 1, 32,
    ]);
  });

  it("of another kind, version or length are not media", () => {
    const [message] = new Fragmenter("audio", 0).cut(bytes(5), 1, CODEC_OPUS, false);
    const good = new Uint8Array(message ?? new ArrayBuffer(0));
    const changed = (at: number, value: number): ArrayBuffer => {
      const copy = good.slice();
      copy[at] = value;
      return copy.buffer;
    };
    expect(parseMedia(good.buffer)).toBeDefined();
    expect(parseMedia(changed(0, 2))).toBeUndefined();
    expect(parseMedia(changed(5, 1))).toBeUndefined();
    expect(parseMedia(changed(7, 2))).toBeUndefined();
    expect(parseMedia(good.slice(0, 20).buffer)).toBeUndefined();
  });

  it("with an impossible fragment are refused", () => {
    const [message] = new Fragmenter("video", 0).cut(bytes(5), 1, CODEC_H264, false);
    const data = new Uint8Array(message ?? new ArrayBuffer(0));
    data[19] = 1;
    expect(parseMedia(data.buffer)).toBeUndefined();
    data[20] = 0;
    expect(parseMedia(data.buffer)).toBeUndefined();
  });
});

describe("fragmentation", () => {
  it("keeps pieces within 8,192 bytes and marks keyframe and frame end", () => {
    const frame = bytes(2 * FRAGMENT_BYTES + 1);
    const messages = parsed(new Fragmenter("video", 0).cut(frame, 40, CODEC_H264, true));
    expect(messages.map((m) => [m.payload.length, m.keyframe, m.frameEnd, m.fragmentIndex, m.fragmentCount, m.seq])).toEqual([
      [8192, true, false, 0, 3, 0], [8192, true, false, 1, 3, 1], [1, true, true, 2, 3, 2],
    ]);
    expect(pushAll(new Reassembler("video"), messages)[0]?.payload).toEqual(frame);
  });

  it("refuses a frame that needs more than 255 pieces", () => {
    expect(new Fragmenter("video", 0).cut(new Uint8Array(255 * FRAGMENT_BYTES + 1), 0, CODEC_H264, true)).toEqual([]);
    expect(new Fragmenter("video", 0).cut(new Uint8Array(255 * FRAGMENT_BYTES), 0, CODEC_H264, true)).toHaveLength(255);
  });

  it("makes timestamps strictly increasing", () => {
    const fragmenter = new Fragmenter("audio", 0);
    const times = [100, 100, 99, 130].flatMap((t) => parsed(fragmenter.cut(bytes(3), t, CODEC_OPUS, false)).map((m) => m.timestamp));
    expect(times).toEqual([100, 101, 102, 130]);
  });

  it("wraps sequence number and timestamp", () => {
    const fragmenter = new Fragmenter("audio", 0, 0xffffffff);
    const messages = [2 ** 32 - 1, 2 ** 32 + 19].flatMap((t) => parsed(fragmenter.cut(bytes(3), t, CODEC_OPUS, false)));
    expect(messages.map((m) => [m.seq, m.timestamp])).toEqual([[0xffffffff, 0xffffffff], [0, 19]]);
    const reassembler = new Reassembler("audio");
    expect(pushAll(reassembler, messages)).toHaveLength(2);
    expect(reassembler.lost).toBe(0);
  });
});

describe("reassembly", () => {
  const stream = (): { key: MediaMessage[]; delta: MediaMessage[]; delta2: MediaMessage[]; key2: MediaMessage[] } => {
    const fragmenter = new Fragmenter("video", 0);
    return {
      key: parsed(fragmenter.cut(bytes(20_000), 0, CODEC_H264, true)),
      delta: parsed(fragmenter.cut(bytes(9000), 33, CODEC_H264, false)),
      delta2: parsed(fragmenter.cut(bytes(10), 66, CODEC_H264, false)),
      key2: parsed(fragmenter.cut(bytes(10), 99, CODEC_H264, true)),
    };
  };

  it("drops a frame with a missing piece and everything up to the next keyframe", () => {
    const { key, delta, delta2, key2 } = stream();
    const reassembler = new Reassembler("video");
    const frames = pushAll(reassembler, [...key, ...delta.slice(1), ...delta2, ...key2]);
    expect(frames.map((frame) => frame.timestamp)).toEqual([0, 99]);
    expect(frames[1]?.lostBefore).toBe(1);
    expect(reassembler.lost).toBe(1);
    expect(reassembler.waitingForKeyframe).toBe(false);
  });

  it("notices the loss of the last piece", () => {
    const { key, delta, delta2, key2 } = stream();
    const frames = pushAll(new Reassembler("video"), [...key, ...delta.slice(0, 1), ...delta2, ...key2]);
    expect(frames.map((frame) => frame.timestamp)).toEqual([0, 99]);
  });

  it("starts with a keyframe only", () => {
    const { delta, delta2, key2 } = stream();
    const frames = pushAll(new Reassembler("video"), [...delta, ...delta2, ...key2]);
    expect(frames.map((frame) => frame.timestamp)).toEqual([99]);
  });

  it("starts in the middle of a frame without harm", () => {
    const { key, key2 } = stream();
    const frames = pushAll(new Reassembler("video"), [...key.slice(1), ...key2]);
    expect(frames.map((frame) => frame.timestamp)).toEqual([99]);
  });

  it("bounds the size of a frame", () => {
    const messages = parsed(new Fragmenter("video", 0).cut(bytes(20_000), 0, CODEC_H264, true));
    expect(pushAll(new Reassembler("video", 20_000), messages)).toHaveLength(1);
    expect(pushAll(new Reassembler("video", 19_999), messages)).toHaveLength(0);
  });

  it("counts lost audio but passes on what follows", () => {
    const fragmenter = new Fragmenter("audio", 0);
    const messages = [0, 20, 40, 60].flatMap((t) => parsed(fragmenter.cut(bytes(3), t, CODEC_OPUS, false)));
    const reassembler = new Reassembler("audio");
    const frames = pushAll(reassembler, messages.filter((_, i) => i !== 1 && i !== 2));
    expect(frames.map((frame) => [frame.timestamp, frame.lostBefore])).toEqual([[0, 0], [60, 2]]);
  });

  it("counts nothing as lost across a new connection, and begins it with a keyframe", () => {
    const { key, delta, delta2, key2 } = stream();
    const reassembler = new Reassembler("video");
    pushAll(reassembler, key);
    reassembler.restart();
    expect(pushAll(reassembler, [...delta.slice(1), ...delta2, ...key2]).map((frame) => frame.timestamp)).toEqual([99]);
    expect(reassembler.lost).toBe(0);
  });

  it("does not count a restarted counter as loss", () => {
    const reassembler = new Reassembler("audio");
    pushAll(reassembler, [...parsed(new Fragmenter("audio", 0, 500).cut(bytes(3), 0, 0, false)), ...parsed(new Fragmenter("audio", 0, 7).cut(bytes(3), 20, 0, false))]);
    expect(reassembler.lost).toBe(0);
  });
});
