import type { MemberInfo, TrackInfo } from "../control/messages.js";
import type { LeaveReason } from "../types.js";
import { LiveLocalParticipant, LiveParticipant } from "./participant.js";
import { LiveTrack } from "./remote-track.js";

/** What a change of the roster makes known. */
export interface RosterEvents {
  joined(participant: LiveParticipant): void;
  changed(participant: LiveParticipant): void;
  left(participant: LiveParticipant, reason: LeaveReason): void;
  trackAdded(track: LiveTrack, participant: LiveParticipant): void;
  trackRemoved(track: LiveTrack, participant: LiveParticipant): void;
  visibilityChanged(): void;
  /** A track is needed in another size. */
  sideChanged(): void;
}

/** Who is in the room and what they send, kept up by the control channel's messages. */
export class Roster {
  readonly participants = new Map<number, LiveParticipant>();
  local: LiveLocalParticipant | undefined;

  constructor(readonly events: RosterEvents) {}

  /** The complete list, at every join. Whoever is not in it any more has left. */
  replace(members: readonly MemberInfo[], localId: number): void {
    // A gateway that was started anew counts from 1 again: the same id is somebody else then, also the one that we had.
    const same = (participant: LiveParticipant, member: MemberInfo): boolean =>
      member.id !== localId && member.id === participant.id && member.fingerprint === participant.fingerprint;
    for (const participant of [...this.participants.values()]) {
      // The local participant stays the same object, even when a new join gives it a new id.
      if (!participant.isLocal && !members.some((member) => same(participant, member))) this.left(participant.id, "lost");
    }
    const before = [...this.participants.values()].filter((participant) => !participant.isLocal);
    this.participants.clear();
    for (const member of members) {
      const known = before.find((participant) => same(participant, member));
      if (member.id === localId) this.#setLocal(member);
      else if (known) this.participants.set(known.id, known);
      else this.participants.set(member.id, new LiveParticipant(member, false));
    }
    for (const member of members) {
      const participant = this.participants.get(member.id);
      if (!participant) continue;
      if (participant.isLocal) {
        this.events.changed(participant);
      } else if (before.includes(participant)) {
        if (participant.update(member)) this.events.changed(participant);
      } else {
        this.events.joined(participant);
      }
      this.#setTracks(participant, member.tracks);
    }
  }

  /** `member_joined` and `member_changed`. */
  update(member: MemberInfo): void {
    let participant = this.participants.get(member.id);
    let changed = false;
    if (participant) {
      changed = participant.update(member);
    } else {
      participant = new LiveParticipant(member, false);
      this.participants.set(member.id, participant);
      this.events.joined(participant);
    }
    if (this.#setTracks(participant, member.tracks) || changed) this.events.changed(participant);
  }

  left(id: number, reason: LeaveReason): void {
    const participant = this.participants.get(id);
    if (!participant || participant.isLocal) return;
    this.#setTracks(participant, []);
    this.participants.delete(id);
    this.events.left(participant, reason);
  }

  track(id: number, kind: string, slot: number): LiveTrack | undefined {
    return this.participants.get(id)?.track(kind, slot);
  }

  /** All remote tracks. */
  get tracks(): LiveTrack[] {
    return [...this.participants.values()].flatMap((participant) => participant.tracks);
  }

  #setLocal(member: MemberInfo): void {
    this.local ??= new LiveLocalParticipant(member);
    this.local.update(member);
    this.participants.set(member.id, this.local);
  }

  /** @returns whether anything changed */
  #setTracks(participant: LiveParticipant, infos: readonly TrackInfo[]): boolean {
    if (participant.isLocal) return false;
    let changed = false;
    for (const track of [...participant.tracks]) {
      if (infos.some((info) => info.kind === track.kind && info.slot === track.slot)) continue;
      participant.tracks.splice(participant.tracks.indexOf(track), 1);
      this.events.trackRemoved(track, participant);
      changed = true;
    }
    for (const info of infos) {
      const known = participant.tracks.find((track) => track.kind === info.kind && track.slot === info.slot);
      if (known) {
        changed = known.update(info) || changed;
        continue;
      }
      const track = new LiveTrack(participant.id, info, () => this.events.visibilityChanged(), () => this.events.sideChanged());
      participant.tracks.push(track);
      this.events.trackAdded(track, participant);
      changed = true;
    }
    return changed;
  }
}
