import type { Publication, TrackKind, TrackSource } from "../types.js";

/** What a publication asks its room to do. */
export interface PublicationOwner {
  muted(publication: LivePublication): void;
  trackReplaced(publication: LivePublication): Promise<void>;
  stopped(publication: LivePublication): void;
}

/** @internal */
export class LivePublication implements Publication {
  readonly kind: TrackKind;
  codec = "";
  muted = false;
  limitReason: string | undefined;
  /** Why the track cannot be read, or why WebRTC gets nothing out of it. */
  captureFailure: string | undefined;
  rtpFailure: string | undefined;
  /** What the session worker says of it. */
  told: { state: Publication["state"]; failure: string | undefined } = { state: "starting", failure: undefined };
  /** The server has been told of it, which is done when its codec is known. */
  announced = false;
  /** Its track has ended, by the device or by the page. */
  ended = false;
  #stopped = false;

  constructor(
    /** Names it towards the session worker. */
    readonly number: number,
    readonly owner: PublicationOwner,
    public track: MediaStreamTrack,
    readonly source: TrackSource,
    readonly slot: number,
    readonly maxBitrate: number,
    readonly fps: number,
  ) {
    this.kind = track.kind === "audio" ? "audio" : "video";
  }

  get state(): Publication["state"] {
    return this.failure === undefined ? this.told.state : "failed";
  }

  get failure(): string | undefined {
    if (this.ended && !this.muted) return "The track has ended; go on with another one.";
    return this.captureFailure ?? this.rtpFailure ?? this.told.failure;
  }

  mute(on: boolean): Promise<void> {
    if (on !== this.muted && !this.#stopped) {
      this.muted = on;
      this.owner.muted(this);
    }
    return Promise.resolve();
  }

  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    refuseUnlessLive(track);
    if (track.kind !== this.track.kind) throw new TypeError(`A ${this.kind} publication cannot take a ${track.kind} track.`);
    this.track = track;
    this.ended = false;
    if (!this.#stopped) await this.owner.trackReplaced(this);
  }

  stop(): Promise<void> {
    if (!this.#stopped) {
      this.#stopped = true;
      this.owner.stopped(this);
    }
    return Promise.resolve();
  }
}

/** @throws TypeError for what nothing can be sent of */
export function refuseUnlessLive(track: MediaStreamTrack | undefined): asserts track is MediaStreamTrack {
  if (track?.kind !== "audio" && track?.kind !== "video") throw new TypeError("A MediaStreamTrack is needed, as getUserMedia gives it.");
  if (track.readyState === "ended") throw new TypeError("The track has ended; ask the browser for a new one.");
}
