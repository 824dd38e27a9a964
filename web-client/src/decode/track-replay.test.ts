import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CODEC_H264 } from "../media/header.js";
import { epochNow } from "../workers/messages.js";
import { Screen } from "./screen.js";
import { TrackDecoder, type EncodedPicture } from "./track-decoder.js";

/** Gives every picture back at once. */
class InstantDecoder {
  state = "unconfigured";
  constructor(readonly init: { output: (frame: unknown) => void }) {}
  configure(): void {
    this.state = "configured";
  }
  decode(chunk: { timestamp: number }): void {
    this.init.output({ timestamp: chunk.timestamp, displayWidth: 2, displayHeight: 2, close: () => undefined, clone: () => ({ timestamp: chunk.timestamp, displayWidth: 2, displayHeight: 2, close: () => undefined }) });
  }
  close(): void {
    this.state = "closed";
  }
}

class Chunk {
  readonly timestamp: number;
  constructor(init: { timestamp: number }) {
    this.timestamp = init.timestamp;
  }
}

const KEY = Uint8Array.of(0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 1, 0, 0, 0, 1, 0x68, 1, 0, 0, 0, 1, 0x65, 1);
const DELTA = Uint8Array.of(0, 0, 0, 1, 0x41, 1);
const events = { live: (): void => undefined, drawn: (): void => undefined, needKeyframe: (): void => undefined, size: (): void => undefined, first: (): void => undefined, unsupported: (): void => undefined, supported: (): void => undefined };

const picture = (timestamp: number, keyframe: boolean): EncodedPicture => ({ codec: CODEC_H264, keyframe, timestamp, arrived: epochNow(), data: keyframe ? KEY : DELTA });

/** Time that the tests move, and a decoder without delay. */
function fakeBrowser(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  vi.stubGlobal("VideoDecoder", InstantDecoder);
  vi.stubGlobal("EncodedVideoChunk", Chunk);
}

describe("a tile that is hidden and shown again", () => {
  let shown: number[];
  let decoder: TrackDecoder;
  let start: number;

  const push = (timestamp: number, keyframe: boolean): void =>
    decoder.push(picture(timestamp, keyframe));

  beforeEach(() => {
    fakeBrowser();
    shown = [];
    decoder = new TrackDecoder("1:video:0", events);
    const context = { drawImage: (frame: { timestamp: number }) => shown.push(frame.timestamp / 1000) };
    decoder.setScreen(new Screen({ width: 2, height: 2, getContext: () => context } as unknown as OffscreenCanvas));
    start = epochNow();
    decoder.presenter.setRoomClock(100_000, start);
    // Live, from a keyframe on.
    for (let t = 0; t <= 2000; t += 40) {
      push(100_000 + t, t === 0);
      vi.advanceTimersByTime(40);
    }
    expect(shown.length).toBe(51);
    shown = [];
  });

  afterEach(() => {
    decoder.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("shows nothing of the replay that it has shown before, nor runs through the rest", () => {
    // Shown again soon after, within the same group of pictures: the replay begins at its keyframe.
    vi.advanceTimersByTime(1000);
    const live = 100_000 + epochNow() - start;
    for (let t = 100_000; t <= live; t += 40) push(t, t === 100_000);
    expect(shown.every((timestamp) => timestamp > live - 300)).toBe(true);
    vi.advanceTimersByTime(100);
    expect(shown.at(-1)).toBeGreaterThan(live - 40);
  });

  it("keeps the last picture while only an old one has come", () => {
    vi.advanceTimersByTime(5000);
    push(100_000, true);
    vi.advanceTimersByTime(250);
    expect(shown).toEqual([]);
    push(100_000 + epochNow() - start, true);
    vi.advanceTimersByTime(100);
    expect(shown.length).toBe(1);
  });
});

describe("a page that waits for a picture of now on a canvas", () => {
  let told: number[];
  let shown: number[];
  let decoder: TrackDecoder;
  let start: number;
  const canvas = { width: 2, height: 2, getContext: () => ({ drawImage: (frame: { timestamp: number }) => shown.push(frame.timestamp / 1000) }) } as unknown as OffscreenCanvas;
  const push = (timestamp: number, keyframe: boolean): void =>
    decoder.push(picture(timestamp, keyframe));

  beforeEach(() => {
    fakeBrowser();
    [told, shown] = [[], []];
    start = epochNow();
    decoder = new TrackDecoder("1:video:0", { ...events, drawn: (width) => void told.push(width, epochNow() - start) });
    decoder.presenter.setRoomClock(100_000, start);
  });

  afterEach(() => {
    decoder.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("is told at the next live one, or at once if one was just drawn", () => {
    decoder.setScreen(new Screen(canvas));
    decoder.tell();
    vi.advanceTimersByTime(100);
    expect(told).toEqual([]);
    push(100_100, true);
    expect(told).toEqual([2, 100]);
    vi.advanceTimersByTime(TrackDecoder.NOW_MS - 1);
    decoder.tell();
    expect(told).toEqual([2, 100, 2, 100 + TrackDecoder.NOW_MS - 1]);
    vi.advanceTimersByTime(1);
    decoder.tell();
    expect(told).toHaveLength(4);
  });

  it("is not told of a replay, but of its end", () => {
    decoder.setScreen(new Screen(canvas));
    decoder.tell();
    push(98_000, true);
    expect([shown, told]).toEqual([[98_000], []]);
    vi.advanceTimersByTime(TrackDecoder.QUIET_MS);
    expect(told).toEqual([2, TrackDecoder.QUIET_MS]);
  });

  it("finds the picture that came before the canvas on it", () => {
    push(100_000, true);
    push(100_040, false);
    expect(shown).toEqual([]);
    decoder.setScreen(new Screen(canvas));
    expect(shown).toEqual([100_040]);
  });
});
