import { Emitter } from "./events.js";
import { RoomError } from "./error.js";
import type { LocalParticipant, Participant, Publication, PublishOptions, RoomAudio, RoomEvents, RoomState, RoomStats, StatsOptions, Uplink } from "./types.js";

/** A call that this page is in. Made by {@link connect}. */
export abstract class Room extends Emitter<RoomEvents> {
  abstract readonly roomName: string;
  abstract readonly url: string;
  abstract readonly state: RoomState;
  /** Why `state` is `closed`; absent after an ordinary `disconnect`. */
  abstract readonly closeReason?: RoomError | undefined;
  /** Everybody in the room by id, the local one included, in the order of joining. */
  abstract readonly participants: ReadonlyMap<number, Participant>;
  abstract readonly local: LocalParticipant;
  /** How the room stands with another relay; `undefined`: it joins none. */
  abstract readonly uplink: Uplink | undefined;
  abstract readonly audio: RoomAudio;
  /**
   * Sends a track to the room. Resolves when the others are about to be told (`state` is `starting`); what becomes of it is told by
   * `participantchanged` with the local participant. A track that is published twice is sent twice.
   * @throws TypeError for what is no MediaStreamTrack, or one that has ended
   * @throws RoomError `not_joined` once the room is closed
   */
  abstract publish(track: MediaStreamTrack, options?: PublishOptions): Promise<Publication>;
  /** Figures about this moment. */
  abstract stats(options?: StatsOptions): Promise<RoomStats>;
  /** Leaves. Tracks that were published are not stopped: they belong to the caller. */
  abstract disconnect(reason?: string): Promise<void>;
}
