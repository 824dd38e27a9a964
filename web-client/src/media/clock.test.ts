import { describe, expect, it } from "vitest";
import { OffsetClock, Unwrapper } from "./clock.js";

describe("mapping by the smallest arrival offset", () => {
  it("takes delays out", () => {
    const clock = new OffsetClock();
    const delays = [5, 30, 2, 60, 2, 15];
    let last = 0;
    for (let i = 0; i < 500; i++) last = clock.map(i * 20, 1000 + i * 20 + (delays[i % 6] ?? 0));
    expect(last).toBeGreaterThanOrEqual(1000 + 499 * 20 + 1);
    expect(last).toBeLessThan(1000 + 499 * 20 + 3);
  });

  it("never moves faster than 5 ms per second", () => {
    const clock = new OffsetClock();
    clock.map(0, 100);
    const before = clock.offset ?? 0;
    clock.map(1000, 1050);
    expect(before - (clock.offset ?? 0)).toBeLessThanOrEqual(5.3);
  });

  it("follows a clock that drifts", () => {
    const clock = new OffsetClock();
    let error = 0;
    for (let i = 0; i < 6000; i++) error = clock.map(i * 20 * 1.0002, i * 20) - i * 20;
    expect(Math.abs(error)).toBeLessThan(5);
  });

  it("takes over a clock that was set or stood still", () => {
    const clock = new OffsetClock();
    for (let i = 0; i < 50; i++) clock.map(i * 20, i * 20);
    for (let i = 0; i < 50; i++) clock.map(1000 + i * 20, 6000 + i * 20);
    expect(clock.map(2000, 7000)).toBeCloseTo(7000, -1);
    expect(clock.map(90_000, 7020)).toBeCloseTo(7020, -1);
  });
});

describe("unwrapping", () => {
  it("goes on over the wrap and backwards over it", () => {
    const unwrapper = new Unwrapper();
    expect([0xfffffff0, 4, 0xfffffffe, 10].map((t) => unwrapper.unwrap(t))).toEqual([0xfffffff0, 2 ** 32 + 4, 2 ** 32 - 2, 2 ** 32 + 10]);
  });
});
