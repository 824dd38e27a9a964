import { afterEach, describe, expect, it, vi } from "vitest";
import { claimedCodecs, decodableCodecs } from "./decodable.js";

function browser(supported: (codec: string) => boolean | Promise<never>): void {
  vi.stubGlobal("AudioDecoder", () => undefined);
  vi.stubGlobal("VideoDecoder", {
    isConfigSupported: async ({ codec }: VideoDecoderConfig) => ({ supported: await supported(codec) }),
  });
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe("what this browser decodes", () => {
  it("is what it says of each codec, not that there is a decoder at all", async () => {
    browser((codec) => codec.startsWith("av01"));
    expect(claimedCodecs()).toEqual(["opus", "h264", "av1"]);
    expect(await decodableCodecs()).toEqual(["opus", "av1"]);
  });

  it("is nothing without the interfaces", async () => {
    expect(await decodableCodecs()).toEqual([]);
  });

  it("does not have a codec about which the browser does not even want to be asked", async () => {
    browser((codec) => (codec.startsWith("avc1") ? true : Promise.reject(new TypeError("unknown codec"))));
    expect(await decodableCodecs()).toEqual(["opus", "h264"]);
  });

  it("is believed when the browser does not answer", async () => {
    vi.useFakeTimers();
    browser((codec) => (codec.startsWith("avc1") ? true : new Promise<never>(() => undefined)));
    const answer = decodableCodecs();
    await vi.advanceTimersByTimeAsync(2000);
    expect(await answer).toEqual(["opus", "h264", "av1"]);
  });
});
