import type { SourceStats } from "../types.js";
import type { ReceivedStats } from "../workers/messages.js";
import type { LiveParticipant } from "./participant.js";

/** Moments as milliseconds since the join; 0: not yet. */
export const sinceJoined = (at: number, joinedAt: number): number => (at === 0 ? 0 : Math.max(0, Math.round(at - joinedAt)));

/** The public figures of what came over the WebSocket. Times turn from "at" into "since the join". */
export function sourceStats(received: readonly ReceivedStats[], participants: ReadonlyMap<number, LiveParticipant>, joinedAt: number): SourceStats[] {
  return received.flatMap(({ key, firstFrameAt, ...figures }) => {
    const [id, kind, slot] = key.split(":");
    const participant = participants.get(Number(id));
    if (!participant) return [];
    const at = participant.track(kind ?? "", Number(slot))?.firstShownAt || firstFrameAt;
    return {
      id: participant.id,
      alias: participant.alias,
      kind: kind === "audio" ? "audio" : "video",
      slot: Number(slot),
      ...figures,
      firstFrameMs: sinceJoined(at, joinedAt),
    };
  });
}
