import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { RESERVED_NAMES, RESERVED_PREFIXES, roomNameProblem } from "./name.js";

/** The quoted words of a Rust constant. */
function rustList(source: string, constant: string): string[] {
  const body = new RegExp(`const ${constant}: [^=]*= \\[([^\\]]*)\\]`, "u").exec(source)?.[1] ?? "";
  return [...body.matchAll(/"([^"]*)"/gu)].map(([, word]) => word ?? "");
}

describe("a room's name", () => {
  it("is refused here whenever the gateway would refuse it", () => {
    const gateway = readFileSync(new URL("../../../wzp-proto/src/room_name.rs", import.meta.url), "utf8");
    expect(RESERVED_NAMES).toEqual(rustList(gateway, "EXACT"));
    expect(RESERVED_PREFIXES).toEqual(rustList(gateway, "PREFIXES"));
    expect(RESERVED_NAMES.length).toBeGreaterThan(5);
  });

  it("may be anything else that fits into a link", () => {
    for (const name of ["standup", " Käse & Brot ", "x".repeat(64), "🦦".repeat(64), "pinging", "a_b", "wsx"]) expect(roomNameProblem(name)).toBeUndefined();
  });

  it("that cannot be is told why", () => {
    expect(roomNameProblem("  ")).toMatch(/at least one/u);
    expect(roomNameProblem("x".repeat(65))).toMatch(/at most 64/u);
    for (const name of ["PING", "whip", "whep", " metrics ", "healthz", "_signal", "Call-7"]) expect(roomNameProblem(name)).toMatch(/reserved/u);
    for (const name of ["a/b", "what?", "#1"]) expect(roomNameProblem(name)).toMatch(/link/u);
    expect(roomNameProblem("tab\u0007bell")).toMatch(/control/u);
  });
});
