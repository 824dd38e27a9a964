import { describe, expect, it } from "vitest";
import { bitrateOfSide, neededSide } from "./picture-size.js";

const wide = { width: 1280, height: 720 };
const side = (width: number, height: number, picture = wide): number | undefined => neededSide(picture, { width, height });

describe("the size that a picture is asked for in", () => {
  it("is the smallest step that is at least four fifths of what is shown", () => {
    expect([1, 225, 226, 337, 450, 451, 675, 676, 900].map((height) => side((height * 16) / 9, height))).toEqual([180, 180, 270, 270, 360, 540, 540, 720, 720]);
  });

  it("has no bound for what is shown large, or not known", () => {
    expect([side(1602, 901), side(3840, 2160), side(0, 0), side(300, 200, { width: 0, height: 0 })]).toEqual([undefined, undefined, undefined, undefined]);
  });

  it("is that of a picture which fills its place, however much of it is cut away", () => {
    expect(side(200, 450)).toBe(360);
    expect(side(800, 100)).toBe(360);
    expect(side(450, 800, { width: 720, height: 1280 })).toBe(360);
  });

  it("does not depend on the size in which the picture comes now", () => {
    for (const height of [180, 270, 360, 540, 1080]) expect(side(640, 360, { width: (height * 16) / 9, height })).toBe(360);
  });
});

describe("the rate of a small picture", () => {
  it("grows with its size, and is free for large ones", () => {
    expect([100, 180, 181, 270, 360, 540, 541, 720, undefined].map(bitrateOfSide)).toEqual([200_000, 200_000, 350_000, 350_000, 600_000, 900_000, Infinity, Infinity, Infinity]);
  });
});
