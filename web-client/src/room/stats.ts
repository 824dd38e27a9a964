import type { SourceStats } from "../types.js";
import type { ReceivedStats } from "../workers/messages.js";
import type { LiveParticipant } from "./participant.js";

/** The public figures of what came over the WebSocket. Times turn from "at" into "since the join". */
export function sourceStats(received: readonly ReceivedStats[], participants: ReadonlyMap<number, LiveParticipant>, joinedAt: number): SourceStats[] {
  return received.flatMap(({ key, firstFrameAt, ...figures }) => {
    const [id, kind, slot] = key.split(":");
    const participant = participants.get(Number(id));
    if (!participant) return [];
    return {
      id: participant.id,
      alias: participant.alias,
      kind: kind === "audio" ? "audio" : "video",
      slot: Number(slot),
      ...figures,
      firstFrameMs: firstFrameAt === 0 ? 0 : Math.max(0, Math.round(firstFrameAt - joinedAt)),
    };
  });
}
