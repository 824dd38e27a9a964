import { describe, expect, it } from "vitest";
import { Fragmenter, FRAGMENT_BYTES } from "../media/fragments.js";
import { CODEC_H264 } from "../media/header.js";
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
