import type { RoomStats, SourceStats } from "@wzp/client";
import { describe, expect, it } from "vitest";
import { chartPoints } from "./charts.js";
import { qualityOf } from "./quality.js";
import { rateWords, sourceSecond, timeWords } from "./statspanel.js";

function source(change: Partial<SourceStats> = {}): SourceStats {
  return {
    id: 2, alias: "Ana", kind: "video", slot: 0, codec: "h264", packets: 0, lost: 0, bitrate: 0, framesDecoded: 0, framesDropped: 0, decodeErrors: 0, width: 640, height: 360,
    firstFrameMs: 0, freezeMs: 0, freezeCount: 0, delayMs: 50, audioLevel: 0, dominantHz: 0, ...change,
  };
}

function reading(...sources: SourceStats[]): RoomStats {
  return { transport: "websocket", transportReason: "", joinMs: 0, rttMs: 0, sources, sending: [] };
}

describe("how somebody comes through", () => {
  const before = source({ packets: 1000, lost: 100, freezeMs: 5000 });
  const rated = (change: Partial<SourceStats>): string => qualityOf(2, reading(source({ packets: 1100, lost: 100, freezeMs: 5000, ...change })), reading(before));

  it("is judged by the last second, not by all that ever was", () => {
    expect(rated({})).toBe("good");
  });

  it("is fair from 2 % loss, 100 ms of freezes or 350 ms of delay on", () => {
    for (const change of [{ lost: 103 }, { freezeMs: 5101 }, { delayMs: 351 }]) expect(rated(change)).toBe("fair");
    for (const change of [{ lost: 101 }, { freezeMs: 5100 }, { delayMs: 350 }]) expect(rated(change)).toBe("good");
  });

  it("is poor from 8 % loss, 500 ms of freezes or 800 ms of delay on", () => {
    for (const change of [{ lost: 110 }, { freezeMs: 5501 }, { delayMs: 801 }]) expect(rated(change)).toBe("poor");
  });

  it("is the worst of the tracks", () => {
    const sound = source({ kind: "audio", packets: 50 });
    expect(qualityOf(2, reading(sound, source({ delayMs: 900 })), undefined)).toBe("poor");
    expect(qualityOf(2, reading(source({ delayMs: 400 }), sound), undefined)).toBe("fair");
  });

  it("is unknown of whom nothing is received", () => {
    expect(qualityOf(3, reading(source()), undefined)).toBe("unknown");
  });
});

describe("figures", () => {
  it("are what happened between two readings, by the second", () => {
    const before = source({ packets: 900, lost: 10, freezeMs: 100, framesDecoded: 300, framesDropped: 2 });
    const now = source({ packets: 1080, lost: 30, freezeMs: 500, framesDecoded: 350, framesDropped: 8 });
    expect(sourceSecond(now, before, 2)).toEqual({ loss: 10, frozen: 200, decoded: 25, dropped: 3 });
    expect(sourceSecond(before, before, 1)).toEqual({ loss: 0, frozen: 0, decoded: 0, dropped: 0 });
  });

  it("of counters that were begun anew are nothing, not less than nothing", () => {
    expect(sourceSecond(source({ packets: 5 }), source({ packets: 900, lost: 10, framesDecoded: 300 }), 1)).toEqual({ loss: 0, frozen: 0, decoded: 0, dropped: 0 });
  });

  it("have words", () => {
    expect([rateWords(48_400), rateWords(1_240_000), timeWords(12.4), timeWords(1440)]).toEqual(["48 kbit/s", "1.2 Mbit/s", "12 ms", "1.4 s"]);
  });

  it("are drawn with the newest at the right and the largest at the top", () => {
    const points = chartPoints([0, 50, 100], 10).split(" ").map((point) => point.split(",").map(Number));
    expect(points.at(-1)).toEqual([59, 1]);
    expect(points[0]?.[1]).toBe(29);
    expect(chartPoints([5], 10)).toBe("59.0,15.0");
    expect(chartPoints(Array.from({ length: 60 }, () => 1), 10).startsWith("0.0,")).toBe(true);
  });
});
