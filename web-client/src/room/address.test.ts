import { describe, expect, it } from "vitest";
import { roomAddress, unreachable } from "./address.js";

const base = "https://call.example:8443/lobby";

describe("a room's address", () => {
  it("is understood in all its forms", () => {
    expect(roomAddress("wss://h:1/ws/team%20a", base)).toEqual({ socketUrl: "wss://h:1/ws/team%20a", room: "team a" });
    expect(roomAddress("https://h/team", base)).toEqual({ socketUrl: "wss://h/ws/team", room: "team" });
    expect(roomAddress("http://h/team?x=1", base)).toEqual({ socketUrl: "ws://h/ws/team", room: "team" });
    expect(roomAddress("Käse & Brot", base)).toEqual({ socketUrl: "wss://call.example:8443/ws/K%C3%A4se%20%26%20Brot", room: "Käse & Brot" });
    expect(roomAddress("wss://h/gate/ws/r", base).socketUrl).toBe("wss://h/gate/ws/r");
  });

  it("with a reserved or too long name is refused", () => {
    for (const input of ["ping", "Version", "whip", "_hidden", "call-7", "a/b", "a?b", "x".repeat(65)]) expect(() => roomAddress(input, base)).toThrow(/name/);
    expect(roomAddress("x".repeat(64), base).room).toHaveLength(64);
  });

  it("without a room is refused", () => {
    for (const input of ["", "https://h/", "wss://h", "https://h/a/b"]) expect(() => roomAddress(input, base)).toThrow(/room/);
  });
});

describe("an address without an answer", () => {
  it("is named with what to try, but for the page's own gateway", () => {
    expect(unreachable("wss://h:1/ws/a", "other")).toMatch(/https:\/\/h:1\/.*certificate/);
    expect(unreachable("ws://h:1/ws/a", "other")).toMatch(/http:\/\/h:1\/.*https/);
    expect(unreachable("wss://h:1/ws/a", "h:1")).toBe("The gateway cannot be reached.");
  });
});
