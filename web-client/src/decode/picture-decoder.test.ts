import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { configurationFor, PictureDecoder, SpareDecoder } from "./picture-decoder.js";

class FakeDecoder {
  static made: FakeDecoder[] = [];
  state: CodecState = "unconfigured";
  configured: string[] = [];
  constructor(readonly init: VideoDecoderInit) {
    FakeDecoder.made.push(this);
  }
  configure({ codec }: VideoDecoderConfig): void {
    this.configured.push(codec);
    this.state = "configured";
  }
  decode(chunk: { timestamp: number }): void {
    this.init.output({ timestamp: chunk.timestamp, close: () => log.push(`closed ${chunk.timestamp}`) } as unknown as VideoFrame);
  }
  close(): void {
    this.state = "closed";
  }
}

let log: string[];
const owner = { output: (frame: VideoFrame) => void log.push(`shown ${frame.timestamp}`), error: () => void log.push("error") };
const picture = (timestamp: number): EncodedVideoChunkInit => ({ type: "key", timestamp, data: new Uint8Array(1) });

beforeEach(() => {
  log = [];
  FakeDecoder.made = [];
  vi.stubGlobal("VideoDecoder", FakeDecoder);
  vi.stubGlobal("EncodedVideoChunk", class {
    timestamp: number;
    constructor(init: EncodedVideoChunkInit) {
      this.timestamp = init.timestamp;
    }
  });
});
afterEach(() => void vi.unstubAllGlobals());

describe("the configuration of a decoder", () => {
  it("is the same for all of H.264 that every decoder takes", () => {
    for (const codec of ["avc1.42e01f", "avc1.42C00D", "avc1.4d401f", "avc1.640028"]) expect(configurationFor(codec)).toBe("avc1.640028");
  });

  it("is the stream's own beyond that", () => {
    for (const codec of ["avc1.640033", "avc1.6e0028", "av01.0.05M.08"]) expect(configurationFor(codec)).toBe(codec);
  });

  it("changes only when it has to", () => {
    const decoder = new PictureDecoder(owner);
    expect([decoder.configure("avc1.42e01f"), decoder.configure("avc1.64001f"), decoder.configure("avc1.640033")]).toEqual([true, false, true]);
    expect(FakeDecoder.made[0]?.configured).toEqual(["avc1.640028", "avc1.640033"]);
    expect(decoder.configure("avc1.42e01f", true)).toBe(true);
    expect(FakeDecoder.made[0]?.configured.at(-1)).toBe("avc1.42e01f");
  });
});

describe("the spare decoder", () => {
  it("is running, goes to the first that it fits, and its gray picture to nobody", () => {
    const spare = new SpareDecoder();
    spare.prepare();
    expect(log).toEqual(["closed 1"]);
    const decoder = spare.take("avc1.42e01f", owner);
    expect(decoder?.configure("avc1.42e01f")).toBe(false);
    decoder?.decode(picture(5));
    // Late, as from a slow decoder.
    FakeDecoder.made[0]?.decode({ timestamp: 1 });
    expect(log).toEqual(["closed 1", "shown 5", "closed 1"]);
    expect(spare.take("avc1.42e01f", owner)).toBeUndefined();
  });

  it("is closed when it does not fit", () => {
    const spare = new SpareDecoder();
    spare.prepare();
    expect(spare.take("av01.0.05M.08", owner)).toBeUndefined();
    expect(FakeDecoder.made[0]?.state).toBe("closed");
  });

  it("goes when nobody needs it", () => {
    const spare = new SpareDecoder();
    spare.prepare();
    spare.drop();
    expect(FakeDecoder.made[0]?.state).toBe("closed");
    expect(spare.take("avc1.42e01f", owner)).toBeUndefined();
  });

  it("that failed is none", () => {
    const spare = new SpareDecoder();
    spare.prepare();
    FakeDecoder.made[0]?.init.error(new DOMException("no such codec", "NotSupportedError"));
    expect(spare.take("avc1.42e01f", owner)).toBeUndefined();
  });

  it("is none where there is no WebCodecs", () => {
    vi.stubGlobal("VideoDecoder", undefined);
    const spare = new SpareDecoder();
    spare.prepare();
    expect(spare.take("avc1.42e01f", owner)).toBeUndefined();
  });
});
