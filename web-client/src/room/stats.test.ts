import { expect, it } from "vitest";
import { LiveParticipant } from "./participant.js";
import { LiveTrack } from "./remote-track.js";
import { sourceStats } from "./stats.js";

it("counts the first picture that was shown, whichever road or decoder it came by", () => {
  const info = { id: 7, name: "Bo", fingerprint: "", door: "native", state: "connected", muted: { audio: false, video: false }, tracks: [] } as never;
  const bo = new LiveParticipant(info, false);
  const track = new LiveTrack(7, { kind: "video", slot: 0, source: "camera", codec: "h264" } as never, () => undefined, () => undefined);
  bo.tracks.push(track);
  const received = [{ key: "7:video:0", firstFrameAt: 5000 }, { key: "7:audio:0", firstFrameAt: 1200 }, { key: "9:video:0", firstFrameAt: 1 }] as never;
  const first = (): number[] => sourceStats(received, new Map([[7, bo]]), 1000).map(({ firstFrameMs }) => firstFrameMs);
  expect(first()).toEqual([4000, 200]);
  let shown = 0;
  track.on("firstframe", () => (shown += 1));
  track.setFirst(1800);
  track.setFirst(5000);
  expect(first()).toEqual([800, 200]);
  expect(shown, "each element's first picture is told").toBe(2);
});
