import { describe, expect, it } from "vitest";
import { gridRects, speakerRects, type Rect } from "./layout.js";

const GAP = 12;
/** Stages: a desk, a wide desk, a phone upright and on its side, a small phone. */
const STAGES = [[1256, 712], [1900, 900], [374, 700], [820, 300], [304, 430]] as const;
const COUNTS = Array.from({ length: 25 }, (_, index) => index + 1);

function overlaps(rects: readonly Rect[]): boolean {
  return rects.some((a, index) => rects.some((b, other) => other > index && a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height));
}

function inside(rects: readonly Rect[], width: number, height: number): boolean {
  return rects.every(({ x, y, width: w, height: h }) => x >= -1 && y >= -1 && x + w <= width + 1 && y + h <= height + 1 && w > 0 && h > 0);
}

/** The share of the stage that pictures cover. */
function used(rects: readonly Rect[], width: number, height: number): number {
  return rects.reduce((sum, rect) => sum + rect.width * rect.height, 0) / (width * height);
}

describe.each(STAGES)("on a stage of %i by %i", (width, height) => {
  it.each(COUNTS)("a grid of %i stays inside, overlaps nowhere and uses the space", (count) => {
    const rects = gridRects(count, width, height, GAP);
    expect(rects).toHaveLength(count);
    expect(inside(rects, width, height)).toBe(true);
    expect(overlaps(rects)).toBe(false);
    // Gaps and the shape of pictures cost something; rows that are not full, too.
    expect(used(rects, width, height)).toBeGreaterThan(0.48);
  });

  it.each(COUNTS.slice(1, 24))("one who talks among %i others is larger than each, and all stay in sight", (others) => {
    const { main, others: small } = speakerRects(others, width, height, GAP);
    const rects = [main, ...small];
    expect(rects).toHaveLength(others + 1);
    expect(inside(rects, width, height)).toBe(true);
    expect(overlaps(rects)).toBe(false);
    for (const rect of small) expect(main.width * main.height).toBeGreaterThan(3.5 * rect.width * rect.height);
    expect(used(rects, width, height)).toBeGreaterThan(0.48);
  });
});

describe("a grid of 1 to 25 on a desk", () => {
  it("covers three quarters of the stage on average", () => {
    const shares = COUNTS.map((count) => used(gridRects(count, 1256, 712, GAP), 1256, 712));
    expect(shares.reduce((sum, share) => sum + share, 0) / shares.length).toBeGreaterThan(0.75);
  });
});
