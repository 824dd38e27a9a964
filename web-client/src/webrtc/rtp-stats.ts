import type { SendStats, SourceStats, TrackKind } from "../types.js";

/** What of a WebRTC stats report is read here; everything may be missing. */
interface Report {
  id: string;
  type: string;
  kind?: string;
  mid?: string;
  codecId?: string;
  mimeType?: string;
  nominated?: boolean;
  state?: string;
  currentRoundTripTime?: number;
  packetsReceived?: number;
  packetsLost?: number;
  bytesReceived?: number;
  framesDecoded?: number;
  framesDropped?: number;
  frameWidth?: number;
  frameHeight?: number;
  freezeCount?: number;
  totalFreezesDuration?: number;
  concealedSamples?: number;
  silentConcealedSamples?: number;
  concealmentEvents?: number;
  jitterBufferDelay?: number;
  jitterBufferEmittedCount?: number;
  bytesSent?: number;
  packetsSent?: number;
  framesEncoded?: number;
  mediaSourceId?: string;
  frames?: number;
  totalSamplesDuration?: number;
  keyFramesEncoded?: number;
  framesPerSecond?: number;
  qualityLimitationReason?: string;
}

export type InboundFigures = Pick<
  SourceStats,
  "codec" | "packets" | "lost" | "bitrate" | "framesDecoded" | "framesDropped" | "width" | "height" | "freezeMs" | "freezeCount" | "delayMs"
>;
export type OutboundFigures = Pick<SendStats, "bitrate" | "fps" | "width" | "height" | "keyframes"> & { codec: string; limitReason: string | undefined };

/** Counts of one sender: pictures (or packets of sound) out of the encoder, and pictures (or packets' worth of sound) that its track gave. */
export interface SendCounts {
  out: number;
  input: number;
}

/** The counters of one m-line, cumulative. */
interface Counters {
  at: number;
  bytes: number;
  packets: number;
  delay: number;
  emitted: number;
}

/** Reads a peer connection's statistics once a second, for rates and delays over that second. */
export class RtpStats {
  rttMs = 0;
  #last = new Map<string, Counters>();
  #inbound = new Map<string, InboundFigures>();
  #outbound = new Map<string, OutboundFigures>();
  readonly #sent = new Map<string, SendCounts>();
  readonly #video = new Set<string>();
  /** What an m-line had counted when it took up its present source. */
  readonly #base = new Map<string, InboundFigures>();

  /** The m-line carries another source from now on. */
  rebase(mid: string): void {
    const now = this.#inbound.get(mid);
    if (now) this.#base.set(mid, now);
  }

  inbound(mid: string): InboundFigures | undefined {
    const now = this.#inbound.get(mid);
    const base = this.#base.get(mid);
    if (!now || !base) return now;
    return {
      ...now,
      packets: now.packets - base.packets, lost: now.lost - base.lost, framesDecoded: now.framesDecoded - base.framesDecoded,
      framesDropped: now.framesDropped - base.framesDropped, freezeMs: now.freezeMs - base.freezeMs, freezeCount: now.freezeCount - base.freezeCount,
    };
  }

  /** Video packets received and lost since the beginning, over all m-lines. */
  received(): { packets: number; lost: number } {
    let [packets, lost] = [0, 0];
    for (const [mid, figures] of this.#inbound) {
      if (!this.#video.has(mid)) continue;
      packets += figures.packets;
      lost += figures.lost;
    }
    return { packets, lost };
  }

  outbound(mid: string): OutboundFigures | undefined {
    return this.#outbound.get(mid);
  }

  /** What went in and came out of a sender; `undefined` while the browser does not tell. */
  sent(mid: string): SendCounts | undefined {
    return this.#sent.get(mid);
  }

  /** @param now ms */
  read(reports: Iterable<unknown>, now: number): void {
    const all = [...reports] as Report[];
    const codec = (report: Report): string => all.find((other) => other.id === report.codecId)?.mimeType?.split("/")[1]?.toLowerCase() ?? "";
    for (const report of all) {
      if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined) this.rttMs = report.currentRoundTripTime * 1000;
      if (report.mid === undefined) continue;
      if (report.type === "inbound-rtp" && report.kind === "video") this.#video.add(report.mid);
      if (report.type === "inbound-rtp") this.#inbound.set(report.mid, this.#readInbound(report, report.mid, codec(report), now));
      if (report.type === "outbound-rtp") this.#sent.set(report.mid, counts(report, all.find((other) => other.id === report.mediaSourceId)));
      if (report.type === "outbound-rtp") this.#outbound.set(report.mid, this.#readOutbound(report, report.mid, codec(report), now));
    }
  }

  #readInbound(report: Report, mid: string, codec: string, now: number): InboundFigures {
    const current: Counters = {
      at: now, bytes: report.bytesReceived ?? 0, packets: report.packetsReceived ?? 0,
      delay: report.jitterBufferDelay ?? 0, emitted: report.jitterBufferEmittedCount ?? 0,
    };
    const last = this.#last.get(mid);
    this.#last.set(mid, current);
    const emitted = current.emitted - (last?.emitted ?? 0);
    const audio = report.kind === "audio";
    const concealed = Math.max(0, (report.concealedSamples ?? 0) - (report.silentConcealedSamples ?? 0)) / 48;
    return {
      codec, packets: current.packets, lost: report.packetsLost ?? 0, bitrate: rate(last, current),
      framesDecoded: report.framesDecoded ?? current.packets, framesDropped: report.framesDropped ?? 0,
      width: report.frameWidth ?? 0, height: report.frameHeight ?? 0,
      freezeMs: audio ? concealed : (report.totalFreezesDuration ?? 0) * 1000,
      freezeCount: (audio ? report.concealmentEvents : report.freezeCount) ?? 0,
      delayMs: emitted > 0 ? ((current.delay - (last?.delay ?? 0)) / emitted) * 1000 : 0,
    };
  }

  #readOutbound(report: Report, mid: string, codec: string, now: number): OutboundFigures {
    const current: Counters = { at: now, bytes: report.bytesSent ?? 0, packets: report.packetsSent ?? 0, delay: 0, emitted: 0 };
    const last = this.#last.get(mid);
    this.#last.set(mid, current);
    const kind: TrackKind = report.kind === "audio" ? "audio" : "video";
    const seconds = last ? (now - last.at) / 1000 : 0;
    const reason = report.qualityLimitationReason;
    return {
      codec, bitrate: rate(last, current),
      fps: kind === "video" ? (report.framesPerSecond ?? 0) : seconds > 0 && last ? Math.round((current.packets - last.packets) / seconds) : 0,
      width: report.frameWidth ?? 0, height: report.frameHeight ?? 0, keyframes: report.keyFramesEncoded ?? 0,
      limitReason: reason === undefined || reason === "none" ? undefined : reason,
    };
  }
}

function counts(report: Report, source: Report | undefined): SendCounts {
  if (report.kind === "audio") return { out: report.packetsSent ?? 0, input: Math.floor((source?.totalSamplesDuration ?? 0) * 50) };
  return { out: report.framesEncoded ?? 0, input: source?.frames ?? 0 };
}

function rate(last: Counters | undefined, current: Counters): number {
  return last && current.at > last.at ? Math.round(((current.bytes - last.bytes) * 8000) / (current.at - last.at)) : 0;
}
