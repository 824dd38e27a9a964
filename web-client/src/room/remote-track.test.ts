import { describe, expect, it } from "vitest";
import type { TrackInfo } from "../control/messages.js";
import { LiveTrack } from "./remote-track.js";

const camera: TrackInfo = { kind: "video", source: "camera", slot: 0, codec: "h264" };

function track(): { track: LiveTrack; log: string[] } {
  const log: string[] = [];
  const made = new LiveTrack(3, camera, () => log.push(made.wanted ? "wanted" : "not wanted"), () => log.push(`side ${made.side}`));
  made.on("paused", (reason) => log.push(reason ?? "goes on"));
  return { track: made, log };
}

describe("a remote track", () => {
  it("is subscribed to at first, and the gateway is asked once for each change", () => {
    const { track: t, log } = track();
    expect([t.subscribed, t.wanted]).toEqual([true, true]);
    t.subscribe();
    t.unsubscribe();
    t.unsubscribe();
    expect([t.subscribed, t.wanted, t.pausedReason]).toEqual([false, false, "unsubscribed"]);
    t.subscribe();
    expect(log).toEqual(["not wanted", "unsubscribed", "wanted", "goes on"]);
  });

  it("stays unwanted while it is hidden or not subscribed to", () => {
    const { track: t, log } = track();
    t.setVisible(false);
    t.unsubscribe();
    t.setVisible(true);
    expect([t.wanted, t.pausedReason]).toEqual([false, "unsubscribed"]);
    t.setVisible(false);
    t.subscribe();
    expect([t.wanted, t.pausedReason]).toEqual([false, "hidden"]);
    t.setVisible(true);
    expect(log).toEqual(["not wanted", "hidden", "unsubscribed", "hidden", "wanted", "goes on"]);
  });

  it("says how much of it is needed once for each change, whatever size it comes in", () => {
    const { track: t, log } = track();
    t.setShownSize(640, 360);
    t.setShownSize(630, 355);
    t.setSize(1280, 720);
    t.setSize(640, 360);
    t.setShownSize(320, 180);
    t.setShownSize(1920, 1080);
    t.setShownSize(0, 0);
    t.setShownSize(450, 225);
    t.setSize(320, 178);
    t.setSize(360, 640);
    expect(log).toEqual(["side 360", "side 180", "side undefined", "side 270", "side 360"]);
  });

  it("is needed in full size if it is a screen", () => {
    const log: string[] = [];
    const t = new LiveTrack(3, { ...camera, source: "screen" }, () => undefined, () => log.push("side"));
    t.setShownSize(320, 180);
    expect([t.side, log]).toEqual([undefined, []]);
  });

  it("tells the gateway's own reason once it is wanted again", () => {
    const { track: t, log } = track();
    t.unsubscribe();
    t.setServerPause("bandwidth");
    expect(t.pausedReason).toBe("unsubscribed");
    t.subscribe();
    expect(t.pausedReason).toBe("bandwidth");
    expect(log.at(-1)).toBe("bandwidth");
  });
});
