import type { MemberInfo } from "../control/messages.js";
import { SpeakingDetector } from "../playout/speaking.js";
import type { Door, LocalParticipant, Participant, Publication } from "../types.js";
import { LiveTrack } from "./remote-track.js";

/** @internal */
export class LiveParticipant implements Participant {
  id: number;
  alias: string;
  fingerprint: string;
  door: Door;
  state: "connected" | "reconnecting";
  muted: { audio: boolean; video: boolean };
  tracks: LiveTrack[] = [];
  audioLevel = 0;
  speaking = false;
  readonly #detector = new SpeakingDetector();

  constructor(
    info: MemberInfo,
    readonly isLocal: boolean,
  ) {
    this.id = info.id;
    this.alias = info.name;
    this.fingerprint = info.fingerprint;
    this.door = info.door;
    this.state = info.state;
    this.muted = info.muted;
  }

  track(kind: string, slot: number): LiveTrack | undefined {
    return this.tracks.find((track) => track.kind === kind && track.slot === slot);
  }

  /** Takes everything but the tracks. @returns whether anything changed */
  update(info: MemberInfo): boolean {
    const before = JSON.stringify([this.alias, this.fingerprint, this.door, this.state, this.muted]);
    this.id = info.id;
    this.alias = info.name;
    this.fingerprint = info.fingerprint;
    this.door = info.door;
    this.state = info.state;
    this.muted = info.muted;
    return before !== JSON.stringify([this.alias, this.fingerprint, this.door, this.state, this.muted]);
  }

  /** Takes a level, linear RMS. @returns whether `speaking` changed */
  hear(level: number, now: number): boolean {
    this.audioLevel = level;
    const speaking = this.#detector.update(level, now);
    if (speaking === this.speaking) return false;
    this.speaking = speaking;
    return true;
  }
}

/** @internal */
export class LiveLocalParticipant extends LiveParticipant implements LocalParticipant {
  publications: Publication[] = [];

  constructor(info: MemberInfo) {
    super(info, true);
  }
}
