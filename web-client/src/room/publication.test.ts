import { describe, expect, it, vi } from "vitest";
import { LivePublication } from "./publication.js";

const track = (kind: string, readyState = "live"): MediaStreamTrack => ({ kind, readyState }) as MediaStreamTrack;
const publication = (): LivePublication =>
  new LivePublication(1, { muted: vi.fn(), trackReplaced: vi.fn(() => Promise.resolve()), stopped: vi.fn() }, track("video"), "camera", 0, 1, 1);

describe("a publication", () => {
  it("has failed when its track has ended, until it gets another one", async () => {
    const sent = publication();
    sent.told = { state: "sending", failure: undefined };
    sent.ended = true;
    expect([sent.state, sent.failure]).toEqual(["failed", expect.stringMatching(/ended/)]);
    await sent.replaceTrack(track("video"));
    expect([sent.state, sent.failure]).toEqual(["sending", undefined]);
  });

  it("that is muted may be without a device", () => {
    const sent = publication();
    sent.told = { state: "muted", failure: undefined };
    sent.muted = sent.ended = true;
    expect(sent.state).toBe("muted");
  });

  it("refuses what nothing can be sent of", async () => {
    await expect(publication().replaceTrack(track("audio"))).rejects.toThrow(/audio/);
    await expect(publication().replaceTrack(track("video", "ended"))).rejects.toThrow(/ended/);
    await expect(publication().replaceTrack(undefined as unknown as MediaStreamTrack)).rejects.toThrow(/MediaStreamTrack/);
  });
});
