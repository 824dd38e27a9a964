import { describe, expect, it } from "vitest";
import { ReplayWatch } from "./replay-watch.js";

/** Presents pictures at 60 Hz; each is `[pictures presented so far, arrival, ms]`. @returns the index of the first that is live */
function firstLive(pictures: readonly [number, number | undefined][]): number {
  const watch = new ReplayWatch();
  return pictures.findIndex(([presentedFrames, receiveTime], index) => watch.presented(1000 + index * 16.7, receiveTime === undefined ? { presentedFrames } : { presentedFrames, receiveTime }));
}

describe("the end of a replay", () => {
  it("is seen by pictures that arrive one by one", () => {
    // Ten of a burst, of which the screen shows every third, then live ones.
    expect(firstLive([[1, 0], [4, 3], [7, 6], [10, 9], [11, 30], [12, 63]])).toBe(4);
  });

  it("is not taken for the pause between a still and what follows it", () => {
    expect(firstLive([[1, 0], [2, 250], [5, 251], [8, 253], [9, 280]])).toBe(4);
  });

  it("is the second picture of a source that begins", () => {
    expect(firstLive([[1, 0], [2, 33]])).toBe(1);
  });

  it("is the third of a screen that seldom changes", () => {
    expect(firstLive([[1, 0], [2, 500], [3, 1000]])).toBe(2);
  });

  it("comes at the latest after a second and a half", () => {
    const burst = Array.from({ length: 120 }, (_, index): [number, number] => [index + 1, index]);
    expect(firstLive(burst)).toBe(Math.ceil(ReplayWatch.MOST_MS / 16.7));
  });

  it("is the first picture where the browser does not tell when it arrived", () => {
    expect(firstLive([[1, undefined]])).toBe(0);
  });
});
