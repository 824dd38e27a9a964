import { describe, expect, it } from "vitest";
import { dominantHz, joinWindows } from "./spectrum.js";

const RATE = 48_000;
const WINDOW = 32_768;
const sound = (hz: (at: number) => number): Float32Array<ArrayBuffer> => {
  let phase = 0;
  return Float32Array.from({ length: 2 * RATE }, (_, at) => 0.5 * Math.sin((phase += (2 * Math.PI * hz(at)) / RATE)));
};
/** What two analysers hold of a sound that ends now, the older of which hears it later. */
const windows = (all: Float32Array<ArrayBuffer>): [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>] => {
  const late = RATE - WINDOW;
  return [all.slice(-WINDOW - late, -late), all.slice(-WINDOW)];
};

describe("the last second of a sound", () => {
  it("is whole, and in order", () => {
    const all = Float32Array.from({ length: 2 * RATE }, (_, at) => at);
    expect(joinWindows(...windows(all), RATE)).toEqual(all.slice(-RATE));
  });

  it("has the tone that most of it was", () => {
    // Four tenths of a second that the shorter window would not hear the most of.
    const all = sound((at) => (at < 2 * RATE - 0.4 * RATE ? 440 : 880));
    expect(dominantHz(joinWindows(...windows(all), RATE), RATE)).toBeCloseTo(440, 0);
    expect(dominantHz(windows(all)[1], RATE)).toBeCloseTo(880, 0);
  });

  it("is a part of the newer window where that is longer", () => {
    const all = Float32Array.from({ length: 100 }, (_, at) => at);
    expect(joinWindows(all, all, 40)).toEqual(all.slice(-40));
  });
});
