import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CODEC_H264 } from "../media/header.js";
import { TrackDecoder, type EncodedPicture } from "./track-decoder.js";

/** A decoder that accepts every configuration and then fails, or decodes, as the test says. */
class FakeDecoder {
  static works = false;
  state: CodecState = "unconfigured";
  constructor(private readonly init: VideoDecoderInit) {}
  configure(): void {
    this.state = "configured";
  }
  decode({ timestamp }: { timestamp: number }): void {
    if (FakeDecoder.works) this.init.output({ timestamp, displayWidth: 4, displayHeight: 4, close: () => undefined, clone: () => ({ close: () => undefined }) } as VideoFrame);
    else this.init.error(new DOMException("no such codec", "NotSupportedError"));
  }
  close(): void {
    this.state = "closed";
  }
}

function picture(timestamp: number, keyframe = true): EncodedPicture {
  // A sequence parameter set of constrained baseline, level 3.1, and an IDR slice.
  const data = Uint8Array.of(0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xa0, 0, 0, 0, 1, 0x65, 0x88);
  return { codec: CODEC_H264, keyframe, timestamp, arrived: timestamp, data };
}

describe("a decoder of one track", () => {
  const log: string[] = [];
  let decoder: TrackDecoder;

  beforeEach(() => {
    log.length = 0;
    FakeDecoder.works = false;
    vi.stubGlobal("VideoDecoder", FakeDecoder);
    vi.stubGlobal(
      "EncodedVideoChunk",
      class {
        timestamp: number;
        constructor({ timestamp }: EncodedVideoChunkInit) {
          this.timestamp = timestamp;
        }
      },
    );
    decoder = new TrackDecoder("7:video:0", {
      needKeyframe: () => log.push("keyframe"),
      size: () => undefined,
      first: () => undefined,
      live: () => undefined,
      drawn: () => undefined,
      unsupported: (codec) => log.push(`unsupported ${codec}`),
      supported: () => log.push("supported"),
    });
  });

  afterEach(() => {
    decoder.close();
    vi.unstubAllGlobals();
  });

  it("gives up asking after three failures without a picture, and says so once", () => {
    for (let at = 0; at < 10; at++) decoder.push(picture(at * 500));
    expect(log).toEqual(["keyframe", "keyframe", "unsupported h264"]);
  });

  it("tries the keyframes that come all the same, and says when one works", () => {
    for (let at = 0; at < 5; at++) decoder.push(picture(at * 500));
    FakeDecoder.works = true;
    decoder.push(picture(2500));
    decoder.push(picture(2533, false));
    expect(log.slice(3)).toEqual(["supported"]);
    expect(decoder.stats().framesDecoded).toBe(2);
  });

  it("that fails now and then is no hopeless one", () => {
    for (let at = 0; at < 12; at++) {
      FakeDecoder.works = at % 3 === 0;
      decoder.push(picture(at * 500));
    }
    expect(log).toEqual(Array.from({ length: 8 }, () => "keyframe"));
  });

  it("without the interface says so at once", () => {
    vi.stubGlobal("VideoDecoder", undefined);
    decoder.push(picture(0));
    decoder.push(picture(500));
    expect(log).toEqual(["unsupported h264"]);
  });
});
