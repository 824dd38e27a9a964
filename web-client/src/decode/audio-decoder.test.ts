import { afterEach, expect, test, vi } from "vitest";
import { OpusDecoder } from "./audio-decoder.js";

afterEach(() => vi.unstubAllGlobals());

test("refused packets are counted, and the next one finds another decoder", () => {
  const made: { error: () => void; state: string }[] = [];
  class Decoder {
    state = "unconfigured";
    error: () => void;
    constructor(init: { error: () => void }) {
      this.error = init.error;
      made.push(this);
    }
    configure(): void {
      this.state = "configured";
    }
    decode({ data }: { data: Uint8Array }): void {
      if (data[1] === 255) throw new Error("refused");
    }
    close(): void {
      this.state = "closed";
    }
  }
  vi.stubGlobal("AudioDecoder", Decoder);
  vi.stubGlobal("EncodedAudioChunk", class {
    data: Uint8Array;
    constructor(init: { data: Uint8Array }) {
      this.data = init.data;
    }
  });
  const decoder = new OpusDecoder(() => {});
  decoder.push(new Uint8Array([0xfc, 0]), 0);
  expect(decoder.errors).toBe(0);
  decoder.push(new Uint8Array([0xfc, 255]), 20);
  expect([decoder.errors, made.length, made[0]?.state]).toEqual([1, 1, "closed"]);
  decoder.push(new Uint8Array([0xfc, 0]), 40);
  made[1]?.error();
  expect([decoder.errors, made.length, made[1]?.state]).toEqual([2, 2, "closed"]);
});
