import { describe, expect, it } from "vitest";
import { codecOfMime, preferAudio, preferSending, preferVideo } from "./codecs.js";
import { RtpStats } from "./rtp-stats.js";

const codec = (mimeType: string, sdpFmtpLine?: string): { mimeType: string; clockRate: number; sdpFmtpLine?: string } => ({
  mimeType, clockRate: 90_000, ...(sdpFmtpLine === undefined ? {} : { sdpFmtpLine }),
});

describe("codec preferences", () => {
  it("are constrained baseline H.264 in mode 1, AV1, and retransmission; nothing else", () => {
    const preferred = preferVideo([
      codec("video/VP8"), codec("video/rtx", "apt=96"), codec("video/AV1", "profile=0"), codec("video/VP9"),
      codec("video/H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
      codec("video/H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
      codec("video/H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
      codec("video/H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"),
    ]);
    expect(preferred.map((entry) => `${entry.mimeType} ${entry.sdpFmtpLine?.slice(-6) ?? ""}`)).toEqual([
      "video/H264 42e01f", "video/H264 42001f", "video/AV1 file=0", "video/rtx apt=96",
    ]);
  });

  it("are AV1 for a browser without H.264", () => {
    expect(preferVideo([codec("video/VP8"), codec("video/AV1")]).map((entry) => entry.mimeType)).toEqual(["video/AV1"]);
  });

  it("put H.265 last, in its main profile", () => {
    const preferred = preferVideo([codec("video/H265", "level-id=93;profile-id=2"), codec("video/H265", "level-id=93;profile-id=1"), codec("video/rtx"), codec("video/AV1")]);
    expect(preferred.map((entry) => `${entry.mimeType} ${entry.sdpFmtpLine ?? ""}`)).toEqual(["video/AV1 ", "video/H265 level-id=93;profile-id=1", "video/rtx "]);
  });

  it("leave H.264 out for a browser that is prompt only with AV1", () => {
    const codecs = [codec("video/H264", "packetization-mode=1;profile-level-id=42e01f"), codec("video/AV1"), codec("video/rtx")];
    const names = (own: string | undefined): string[] => preferSending(codecs, own).map((entry) => entry.mimeType);
    expect(names("av1")).toEqual(["video/AV1", "video/rtx"]);
    expect(names("h264")).toEqual(["video/H264", "video/AV1", "video/rtx"]);
    expect(names(undefined)).toEqual(["video/H264", "video/AV1", "video/rtx"]);
    expect(preferSending(codecs.slice(0, 1), "av1")).toHaveLength(1);
  });

  it("are Opus alone for sound", () => {
    expect(preferAudio([codec("audio/red"), codec("audio/opus"), codec("audio/PCMU")]).map((entry) => entry.mimeType)).toEqual(["audio/opus"]);
  });

  it("have the protocol's names", () => {
    expect(["audio/opus", "video/H264", "video/AV1", "video/VP8"].map(codecOfMime)).toEqual(["opus", "h264", "av1", ""]);
  });
});

describe("WebRTC figures", () => {
  const inbound = (bytes: number, packets: number, delay: number, emitted: number): unknown => ({
    id: "in", type: "inbound-rtp", kind: "video", mid: "1", codecId: "c", bytesReceived: bytes, packetsReceived: packets, packetsLost: 2, framesDecoded: packets / 2,
    frameWidth: 640, frameHeight: 360, jitterBufferDelay: delay, jitterBufferEmittedCount: emitted, totalFreezesDuration: 0.5, freezeCount: 1,
  });
  const codecReport = { id: "c", type: "codec", mimeType: "video/H264" };

  it("are rates and delays over the last second", () => {
    const stats = new RtpStats();
    stats.read([inbound(1000, 10, 1, 10), codecReport], 0);
    stats.read([inbound(126_000, 110, 3, 50), codecReport, { id: "p", type: "candidate-pair", nominated: true, currentRoundTripTime: 0.042 }], 1000);
    expect(stats.inbound("1")).toMatchObject({ codec: "h264", bitrate: 1_000_000, packets: 110, lost: 2, delayMs: 50, width: 640, freezeMs: 500 });
    expect(stats.rttMs).toBe(42);
  });

  it("begin anew when an m-line takes up another source", () => {
    const stats = new RtpStats();
    stats.read([inbound(1000, 10, 1, 10), codecReport], 0);
    stats.rebase("1");
    stats.read([inbound(2000, 16, 1, 10), codecReport], 1000);
    expect(stats.inbound("1")).toMatchObject({ packets: 6, lost: 0, framesDecoded: 3, freezeCount: 0 });
  });
});
