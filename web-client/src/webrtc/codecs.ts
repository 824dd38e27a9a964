/** Which codecs WebRTC may negotiate: those that all doors of the gateway understand, in our order. */

/** A codec as `RTCRtpSender.getCapabilities` lists it. */
export interface CodecCapability {
  mimeType: string;
  clockRate: number;
  channels?: number;
  sdpFmtpLine?: string;
}

/**
 * The list for `setCodecPreferences`: H.264 constrained baseline in packetization mode 1 first, then AV1, then H.265, with their helpers
 * (retransmission); nothing else: other doors could not show it, and H.265 already is shown only where both ends have it. Browsers without H.264 send AV1 that way.
 */
export function preferVideo<T extends CodecCapability>(codecs: readonly T[]): T[] {
  const rank = (codec: T): number => {
    const type = codec.mimeType.toLowerCase();
    const parameters = codec.sdpFmtpLine ?? "";
    if (type === "video/h264") {
      if (!/packetization-mode=1/.test(parameters)) return -1;
      if (/profile-level-id=42e0/i.test(parameters)) return 0;
      return /profile-level-id=42[0-9a-f]0/i.test(parameters) ? 1 : -1;
    }
    if (type === "video/av1") return 2;
    if (type === "video/h265") return /profile-id=(?!1\b)/i.test(parameters) ? -1 : 3;
    return type === "video/rtx" || type === "video/flexfec-03" ? 4 : -1;
  };
  return codecs
    .map((codec) => ({ codec, rank: rank(codec) }))
    .filter((entry) => entry.rank >= 0)
    .sort((a, b) => a.rank - b.rank)
    .map((entry) => entry.codec);
}

/**
 * The same for sending, when the browser's own measure is that it is prompt with `own` (`undefined`: not known yet). The gateway prefers H.264 of
 * what it is offered, so whoever should send AV1 offers no H.264.
 */
export function preferSending<T extends CodecCapability>(codecs: readonly T[], own: string | undefined): T[] {
  const preferred = preferVideo(codecs);
  const is = (name: string) => (codec: T) => codec.mimeType.toLowerCase() === `video/${name}`;
  return own === "av1" && preferred.some(is("av1")) ? preferred.filter((codec) => !is("h264")(codec)) : preferred;
}

/** Sound is Opus and nothing else. */
export function preferAudio<T extends CodecCapability>(codecs: readonly T[]): T[] {
  return codecs.filter((codec) => codec.mimeType.toLowerCase() === "audio/opus");
}

/** The protocol's name of an RTP codec; empty for one that it does not have. */
export function codecOfMime(mimeType: string): string {
  const name = mimeType.split("/")[1]?.toLowerCase() ?? "";
  return ["opus", "h264", "h265", "av1"].includes(name) ? name : "";
}
