import type { RoomStats, SourceStats } from "@wzp/client";

export type Quality = "good" | "fair" | "poor" | "unknown";

const WORDS: Record<Quality, string> = { good: "good connection", fair: "fair connection", poor: "poor connection", unknown: "" };

export function qualityWords(quality: Quality): string {
  return WORDS[quality];
}

/** How well a participant comes through, from what changed between two readings: the worst of its tracks. */
export function qualityOf(id: number, now: RoomStats, before: RoomStats | undefined): Quality {
  let worst: Quality = "unknown";
  for (const source of now.sources.filter((candidate) => candidate.id === id)) {
    const earlier = before?.sources.find((candidate) => candidate.id === id && candidate.kind === source.kind && candidate.slot === source.slot);
    const rank = trackQuality(source, earlier);
    if (rank === "poor" || worst === "unknown" || (rank === "fair" && worst === "good")) worst = rank;
  }
  return worst;
}

function trackQuality(now: SourceStats, before: SourceStats | undefined): Quality {
  const packets = now.packets - (before?.packets ?? 0);
  const lost = now.lost - (before?.lost ?? 0);
  const loss = packets + lost > 0 ? lost / (packets + lost) : 0;
  const frozen = before ? now.freezeMs - before.freezeMs : 0;
  if (loss > 0.08 || frozen > 500 || now.delayMs > 800) return "poor";
  if (loss > 0.02 || frozen > 100 || now.delayMs > 350) return "fair";
  return "good";
}
