import { describe, expect, it } from "vitest";
import type { MemberInfo, TrackInfo } from "../control/messages.js";
import { Roster } from "./roster.js";

const member = (id: number, name: string, tracks: TrackInfo[] = []): MemberInfo => ({
  id, name, fingerprint: `f${name}`, door: "native", state: "connected", muted: { audio: false, video: false }, tracks,
});
const camera: TrackInfo = { kind: "video", source: "camera", slot: 0, codec: "h264" };
const microphone: TrackInfo = { kind: "audio", source: "microphone", slot: 0, codec: "opus" };

function roster(): { roster: Roster; log: string[] } {
  const log: string[] = [];
  return {
    log,
    roster: new Roster({
      joined: (p) => log.push(`joined ${p.alias}`),
      changed: (p) => log.push(`changed ${p.alias}`),
      left: (p, reason) => log.push(`left ${p.alias} ${reason}`),
      trackAdded: (t, p) => log.push(`+${t.kind} ${p.alias}`),
      trackRemoved: (t, p) => log.push(`-${t.kind} ${p.alias}`),
      visibilityChanged: () => log.push("visibility"),
      sideChanged: () => log.push("side"),
    }),
  };
}

describe("the roster", () => {
  it("reports members and tracks once each, in the order of joining", () => {
    const { roster: r, log } = roster();
    r.replace([member(1, "a", [camera]), member(2, "me")], 2);
    r.update(member(3, "b"));
    r.update(member(3, "b", [microphone]));
    r.update(member(3, "b", [microphone]));
    r.left(1, "left");
    expect(log).toEqual(["joined a", "+video a", "changed me", "joined b", "+audio b", "changed b", "-video a", "left a left"]);
    expect([...r.participants.keys()]).toEqual([2, 3]);
  });

  it("says only what changed after a resumed session", () => {
    const { roster: r, log } = roster();
    r.replace([member(1, "a", [camera]), member(2, "me"), member(3, "gone")], 2);
    log.length = 0;
    r.replace([member(1, "a", [camera, microphone]), member(2, "me"), member(4, "new")], 2);
    expect(log).toEqual(["left gone lost", "+audio a", "changed me", "joined new"]);
  });

  it("keeps the local participant as the same object under its new id", () => {
    const { roster: r } = roster();
    r.replace([member(2, "me")], 2);
    const local = r.local;
    r.replace([member(9, "me")], 9);
    expect(r.local).toBe(local);
    expect(local?.id).toBe(9);
    expect([...r.participants.keys()]).toEqual([9]);
  });

  it("takes an id that means somebody else now for a new participant", () => {
    const { roster: r, log } = roster();
    r.replace([member(1, "me"), member(2, "a", [camera]), member(3, "b", [camera])], 1);
    const local = r.local;
    log.length = 0;
    // The gateway was started anew, and the three joined in another order.
    r.replace([member(1, "b", [camera]), member(2, "me"), member(3, "a", [camera])], 2);
    expect(log).toEqual(["-video a", "left a lost", "-video b", "left b lost", "joined b", "+video b", "changed me", "joined a", "+video a"]);
    expect([...r.participants.values()].map(({ id, alias }) => `${id} ${alias}`)).toEqual(["1 b", "2 me", "3 a"]);
    expect(r.local).toBe(local);
  });

  it("never shows the local participant's own tracks as remote ones", () => {
    const { roster: r, log } = roster();
    r.replace([member(2, "me", [camera])], 2);
    r.update(member(2, "me", [camera, microphone]));
    expect(log).toEqual(["changed me"]);
    expect(r.tracks).toEqual([]);
  });
});
