import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const tokens = readFileSync(new URL("../../static/css/tokens.css", import.meta.url), "utf8");
const [light = "", dark = ""] = tokens.split("@media (prefers-color-scheme: dark)");

/** The colours of one block, by name. */
function colours(css: string): Map<string, string> {
  return new Map([...css.matchAll(/--([\w-]+): (#[0-9a-f]{6});/gu)].map(([, name, value]) => [name ?? "", value ?? ""]));
}

/** Relative luminance, WCAG 2. */
function luminance(colour: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [more = 0, less = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (more + 0.05) / (less + 0.05);
}

/** Text, and the grounds it stands on. */
const TEXT = [
  ["ink", ["ground", "surface", "surface-2", "surface-3", "stage", "tile"]],
  ["ink-2", ["ground", "surface", "surface-2", "stage"]],
  ["on-accent", ["accent", "accent-hover"]],
  ["on-danger", ["danger", "danger-hover"]],
  ["accent", ["accent-soft"]],
  ["danger-ink", ["danger-soft", "ground"]],
  ["warn-ink", ["warn-soft"]],
  ["surface", ["ink"]],
] as const;

/** What has to be seen without being read: marks, rings, meters, lines of charts, edges of fields. */
const MARKS = [
  ["speak", ["tile", "stage", "surface-3"]],
  ["ring", ["ground", "surface", "stage", "tile"]],
  ["chart-1", ["surface-2", "surface"]],
  ["chart-2", ["surface-2", "surface"]],
  ["chart-3", ["surface-2", "surface"]],
  ["line-strong", ["ground", "surface"]],
] as const;

describe.each([["light", new Map(colours(light))], ["dark", new Map([...colours(light), ...colours(dark)])]])("in the %s scheme", (_, palette) => {
  const of = (name: string): string => palette.get(name) ?? "#none";

  it.each(TEXT.flatMap(([what, grounds]) => grounds.map((ground) => [what, ground] as const)))("text in %s is at least 4.5:1 on %s", (what, ground) => {
    expect(contrast(of(what), of(ground))).toBeGreaterThanOrEqual(4.5);
  });

  it.each(MARKS.flatMap(([what, grounds]) => grounds.map((ground) => [what, ground] as const)))("%s is at least 3:1 on %s", (what, ground) => {
    expect(contrast(of(what), of(ground))).toBeGreaterThanOrEqual(3);
  });
});
