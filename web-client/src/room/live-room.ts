import { avoidTrackRoad, openCapture, type Capture } from "../capture/capture.js";
import type { Joined, ServerMessage } from "../control/messages.js";
import { RoomError } from "../error.js";
import { Playback } from "../playout/playback.js";
import { Room } from "../room.js";
import type { LocalParticipant, MediaTransport, Participant, Publication, PublishOptions, RoomAudio, RoomState, RoomStats, StatsOptions, TrackSource, Uplink } from "../types.js";
import { WebRtcRoad } from "../webrtc/road.js";
import { epochNow, trackKey, type FromSession, type VideoToPage } from "../workers/messages.js";
import { sentence, unreachable, type RoomAddress } from "./address.js";
import { LivePublication, refuseUnlessLive, type PublicationOwner } from "./publication.js";
import type { LiveParticipant } from "./participant.js";
import type { LiveTrack } from "./remote-track.js";
import { Roster } from "./roster.js";
import { Screens } from "./screens.js";
import { sourceStats } from "./stats.js";
import { Threads } from "./threads.js";
import { Turns } from "./turns.js";

/** What `connect` passes on. */
export interface LiveRoomOptions {
  alias: string;
  id: string;
  token: string | undefined;
  transport: "auto" | MediaTransport;
  audioContext: AudioContext | undefined;
  address: RoomAddress;
}

type StatsAnswer = FromSession & { type: "stats" };

/** @internal */
export class LiveRoom extends Room implements PublicationOwner {
  /** Answers of the session worker are waited for so long, ms. */
  static readonly STATS_MS = 2000;
  /** Changes of a participant within so long are told as one, ms. */
  static readonly CHANGES_MS = 50;

  /** How large pictures are shown is told at most so often, ms: a window is drawn larger in many steps. */
  static readonly VIEW_MS = 250;

  /**
   * Sound is begun when the first picture is shown, WebRTC when pictures are live and have had `AFTER_LIVE_MS` to get to the screen, or
   * so long after the join, ms: all three at once take a slow device as long as the sum, and until WebRTC stands its media come by the
   * WebSocket.
   */
  static readonly PICTURE_FIRST_MS = 100;
  static readonly LIVE_FIRST_MS = 400;
  static readonly AFTER_LIVE_MS = 30;

  /** The session worker needs so long to end: longer than `Sender.LAST_MS`. */
  static readonly GOODBYE_MS = 600;

  /** A browser without a decoder for sound is told so after this, ms: when WebRTC, which has its own, will not come, or does not. */
  static readonly DEAF_AFTER_MS = 3500;
  static readonly DEAF_LATE_MS = WebRtcRoad.LATE_MS + 500;

  state: RoomState = "connecting";
  closeReason: RoomError | undefined;
  uplink: Uplink | undefined;
  readonly roomName: string;
  readonly url: string;
  readonly #threads: Threads;
  readonly #playback: Playback;
  readonly #roster: Roster;
  readonly #road: WebRtcRoad;
  readonly #publications = new Map<number, { publication: LivePublication; capture: Capture | undefined; pending: number }>();
  readonly #statsWaiting = new Map<number, (answer: StatsAnswer) => void>();
  readonly #turns = new Turns();
  /** Whose change is still to be told. */
  readonly #changed = new Set<LiveParticipant>();
  readonly #screens: Screens;
  readonly #started = epochNow();
  readonly #abort = new AbortController();
  #joinMs = 0;
  /** The playback is started. */
  #playing = false;
  #transport: { media: MediaTransport; reason: string } = { media: "websocket", reason: "" };
  #joinedAt = 0;
  #counter = 0;
  #speakers: number[] = [];
  #deafTimer: ReturnType<typeof setTimeout> | undefined;
  #viewTimer: ReturnType<typeof setTimeout> | undefined;
  /** The tracks that the server was told of last. */
  #view = "[]";
  #settle: { resolve: (room: LiveRoom) => void; reject: (error: RoomError) => void } | undefined;

  constructor(readonly options: LiveRoomOptions) {
    super();
    this.roomName = options.address.room;
    this.url = options.address.socketUrl;
    // The way to the gateway first: all else here takes its time meanwhile.
    this.#threads = Threads.take({
      session: (message) => this.#fromSession(message),
      video: (message) => this.#fromVideo(message),
      failed: (reason) => this.#close(new RoomError("unsupported_browser", `A part of the client did not start: ${reason}.`, true)),
    });
    const { alias, id, token, address } = options;
    this.#threads.toSession({ type: "start", url: address.socketUrl, name: alias, id, token, videoPort: this.#threads.videoPort }, [this.#threads.videoPort]);
    this.#playback = new Playback(options.audioContext);
    this.#playback.on("blocked", (blocked) => this.emit("audioblocked", blocked));
    this.#playback.on("failed", (reason) => this.emit("notice", { code: "audio_failed", message: `Sound cannot be played: ${reason}` }));
    this.#roster = new Roster({
      joined: (participant) => this.emit("participantjoined", participant),
      changed: (participant) => this.#tellChange(participant),
      left: (participant, reason) => {
        this.#changed.delete(participant);
        this.emit("participantleft", participant, reason);
      },
      trackAdded: (track, participant) => {
        this.#screens.add(track);
        this.emit("trackadded", track, participant);
      },
      trackRemoved: (track, participant) => {
        this.#screens.remove(track);
        if (track.side !== undefined) this.#viewChanged();
        this.emit("trackremoved", track, participant);
      },
      visibilityChanged: () => this.#sendPaused(),
      sideChanged: () => this.#viewChanged(),
    });
    this.#screens = new Screens(
      this.#turns,
      (message, transfer) => this.#threads.toVideo(message, transfer),
      (track) => this.state !== "closed" && this.#roster.track(track.participantId, "video", track.slot) === track,
    );
    this.#road = new WebRtcRoad(
      options.transport,
      {
        send: (message) => this.#threads.toSession({ type: "control", message }),
        publications: () => [...this.#publications.values()].map(({ publication }) => publication),
        carried: (publication, codec) => this.#carried(publication, codec),
        released: (track, last) => {
          // A closed room changes nothing any more.
          if (this.state !== "closed") this.#screens.backTo(track, last);
        },
        failing: (publication, reason) => {
          if (publication.rtpFailure === reason) return;
          publication.rtpFailure = reason;
          this.#localChanged();
        },
        taken: (participant, slot, drawn) => {
          const track = this.#roster.track(participant, "video", slot);
          if (track) this.#screens.whenDrawn(track, drawn);
        },
        voices: (participants) => this.#threads.toVideo({ type: "voices", participants }),
        held: (sounds) => this.#threads.toSession({ type: "held", sounds }),
        transport: (media, reason) => this.#setTransport(media, reason),
        // Few browsers say when an address changes: media that stops is the first sign that the control channel is dead too.
        interrupted: () => this.#threads.toSession({ type: "network" }),
        levels: (levels) => this.#hear(levels),
      },
      this.#roster,
      this.#playback,
      this.#turns,
    );
  }

  /** Joins. Resolves in the room. */
  join(): Promise<LiveRoom> {
    const joined = new Promise<LiveRoom>((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#turns.hold();
    // As near to the visitor's click as can be.
    void this.#playback.context.resume().catch(() => undefined);
    this.#listen();
    return joined;
  }

  get participants(): ReadonlyMap<number, Participant> {
    return this.#roster.participants;
  }

  get local(): LocalParticipant {
    if (!this.#roster.local) throw new RoomError("not_joined", "Not in the room yet.", false);
    return this.#roster.local;
  }

  get audio(): RoomAudio {
    return this.#playback;
  }

  async publish(track: MediaStreamTrack, options: PublishOptions = {}): Promise<Publication> {
    if (this.state === "closed") throw new RoomError("not_joined", "The room is closed.", false);
    refuseUnlessLive(track);
    const source = options.source ?? guessSource(track);
    const kind = track.kind === "audio" ? "audio" : "video";
    const publication = new LivePublication(
      ++this.#counter, this, track, source, this.#freeSlot(kind, source),
      options.maxBitrate ?? (kind === "audio" ? 32_000 : 1_200_000),
      options.fps ?? (source === "screen" ? 15 : 30),
    );
    this.#publications.set(publication.number, { publication, capture: undefined, pending: 0 });
    this.#listPublications();
    const { width, height } = track.getSettings();
    const { number, slot, maxBitrate, fps } = publication;
    this.#threads.toSession({ type: "publish", spec: { publication: number, kind, source, slot, maxBitrate, fps, width, height } });
    this.#road.published(publication);
    await this.trackReplaced(publication);
    return publication;
  }

  async stats({ sound = true }: StatsOptions = {}): Promise<RoomStats> {
    const request = ++this.#counter;
    const answer = await new Promise<StatsAnswer>((resolve) => {
      this.#statsWaiting.set(request, resolve);
      const played = sound ? this.#road.played() : [];
      this.#threads.toSession({ type: "stats", request, sound, played }, played.map(({ samples }) => samples.buffer));
      setTimeout(() => resolve({ type: "stats", request, rttMs: 0, received: [], sending: [], measured: [] }), LiveRoom.STATS_MS);
    });
    this.#statsWaiting.delete(request);
    const rtp = this.#road.sources(this.#joinedAt, answer.measured);
    const carried = new Set(rtp.map(({ id, kind, slot }) => trackKey({ source: id, kind, slot })));
    return {
      transport: this.#transport.media,
      transportReason: this.#transport.reason,
      joinMs: this.#joinMs,
      rttMs: Math.round((this.#road.rttMs ?? answer.rttMs) * 10) / 10,
      sources: [...rtp, ...sourceStats(answer.received.filter(({ key }) => !carried.has(key)), this.#roster.participants, this.#joinedAt)],
      sending: [...this.#road.sending(), ...answer.sending],
    };
  }

  async disconnect(reason?: string): Promise<void> {
    if (this.state === "closed") return;
    this.#threads.toSession({ type: "leave", reason });
    await new Promise<void>((resolve) => {
      this.once("state", () => resolve());
      setTimeout(() => {
        this.#close(undefined);
        resolve();
      }, 500);
    });
  }

  /** @internal */
  muted(publication: LivePublication): void {
    this.#tellMuted(publication);
    this.#road.changed(publication);
    if (!publication.muted && publication.captureFailure !== undefined) void this.trackReplaced(publication);
  }

  /** @internal */
  async trackReplaced(publication: LivePublication): Promise<void> {
    const entry = this.#publications.get(publication.number);
    if (!entry) return;
    // Two replacements at once: the later one wins.
    const turn = ++entry.pending;
    this.#tellMuted(publication);
    if (this.#road.carries(publication)) {
      this.#road.changed(publication);
      // Sound is read all the same, for its level.
      if (publication.kind === "video") return;
    }
    try {
      const capture = await openCapture(publication.track, this.#playback.context);
      // A capture that comes when all is over belongs to nobody.
      if (this.#isClosed() || turn !== entry.pending || !this.#publications.has(publication.number)) {
        capture.stop();
        return;
      }
      entry.capture?.stop();
      entry.capture = capture;
      this.#setCaptureFailure(publication, undefined);
      this.#threads.toSession({ type: "feed", publication: publication.number, feed: capture.feed }, capture.transfer);
    } catch (error) {
      // What WebRTC carries is read for its level only.
      if (turn === entry.pending && !this.#road.carries(publication)) this.#setCaptureFailure(publication, `The track cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** To the others a track that has ended is switched off, too. */
  #tellMuted({ number, muted, ended }: LivePublication): void {
    this.#threads.toSession({ type: "mute", publication: number, on: muted || ended });
  }

  /** @internal */
  stopped(publication: LivePublication): void {
    this.#threads.toSession({ type: "unpublish", publication: publication.number });
    this.#publications.get(publication.number)?.capture?.stop();
    this.#publications.delete(publication.number);
    this.#road.unpublished(publication);
    if (publication.source === "microphone") this.#roster.local?.hear(0, epochNow());
    this.#listPublications();
    this.#localChanged();
  }

  async #startPlayback(): Promise<void> {
    if (this.#playing || this.state === "closed") return;
    this.#playing = true;
    const port = await this.#playback.start();
    if (!port) return;
    this.#threads.toSession({ type: "playout", port }, [port]);
    this.#reportLatency();
  }

  #listen(): void {
    const { signal } = this.#abort;
    const network = (): void => {
      this.#threads.toSession({ type: "network" });
      this.#road.networkChanged();
    };
    addEventListener("online", network, { signal });
    navigator.connection?.addEventListener("change", network, { signal });
    // The page goes away: the others are to see it at once, not after the time for reconnecting.
    addEventListener("pagehide", () => this.#threads.toSession({ type: "leave", reason: "page closed" }), { signal });
    const look = setInterval(() => {
      this.#reportLatency();
      this.#watchTracks();
    }, 2000);
    signal.addEventListener("abort", () => clearInterval(look));
  }

  /** No event tells that the page itself stopped a track. */
  #watchTracks(): void {
    const over = [...this.#publications.values()].map(({ publication }) => publication).filter(({ ended, track }) => !ended && track.readyState === "ended");
    for (const publication of over) {
      publication.ended = true;
      this.#tellMuted(publication);
    }
    if (over.length > 0) this.#localChanged();
  }

  #reportLatency(): void {
    this.#threads.toSession({ type: "playout-latency", ms: this.#playback.latencyMs });
  }

  #fromSession(message: FromSession): void {
    if (this.state === "closed") return;
    switch (message.type) {
      case "joined":
        this.#joined(message.message, message.at);
        break;
      case "reconnecting":
        this.#setState("reconnecting");
        break;
      case "message":
        this.#fromServer(message.message);
        break;
      case "closed":
        this.#close(message.error && new RoomError(message.error.code, message.error.code === "connect_failed" ? unreachable(this.url, location.host) : sentence(message.error.message), true));
        break;
      case "publication":
        this.#publicationChanged(message);
        break;
      case "unreadable":
        avoidTrackRoad();
        this.#captureAgain(message.publication);
        break;
      case "notice":
        this.emit("notice", { code: message.code, message: message.message });
        break;
      case "video-codec":
        this.#road.prefer(message.codec);
        break;
      case "local-level":
        this.#hear([[this.#roster.local?.id ?? 0, message.level]]);
        break;
      case "levels":
        this.#hear(message.levels);
        break;
      case "stats":
        this.#statsWaiting.get(message.request)?.(message);
        break;
    }
  }

  #joined(message: Joined, at: number): void {
    const first = this.#settle;
    if (first) {
      this.#joinMs = Math.round(at - this.#started);
      this.#joinedAt = at;
    }
    this.#roster.replace(message.members, message.participant);
    this.#setState("connected");
    this.#settle = undefined;
    first?.resolve(this);
    this.#road.begin(message);
    const pictures = typeof VideoDecoder !== "undefined" && this.#roster.tracks.some((track) => this.#isExpected(track));
    setTimeout(() => void this.#startPlayback(), pictures ? LiveRoom.PICTURE_FIRST_MS : 0);
    setTimeout(() => this.#turns.release(), pictures ? LiveRoom.LIVE_FIRST_MS : 0);
  }

  /** WebRTC took a publication over, or gave it back. */
  #carried(publication: LivePublication, codec: string | undefined): void {
    this.#threads.toSession({ type: "carried", publication: publication.number, codec });
    // Each road has its own troubles.
    publication.captureFailure = publication.rtpFailure = undefined;
    const entry = this.#publications.get(publication.number);
    if (!entry || publication.kind !== "video") return;
    entry.pending++;
    entry.capture?.stop();
    entry.capture = undefined;
    if (codec === undefined && this.state !== "closed") void this.trackReplaced(publication);
  }

  #setTransport(media: MediaTransport, reason: string): void {
    if (media === this.#transport.media && reason === this.#transport.reason) return;
    this.#transport = { media, reason };
    this.emit("transport", this.#transport);
    clearTimeout(this.#deafTimer);
    // The gateway sends no sound to whom it knows to be deaf, so that nothing else would ever tell.
    if (media === "websocket" && typeof AudioDecoder === "undefined") {
      this.#deafTimer = setTimeout(() => {
        this.emit("notice", { code: "codec_unsupported", message: "This browser cannot decode Opus sound; you will hear nobody." });
      }, this.#road.isOpen ? LiveRoom.DEAF_LATE_MS : LiveRoom.DEAF_AFTER_MS);
    }
  }

  #fromServer(message: ServerMessage): void {
    this.#road.message(message);
    switch (message.type) {
      case "member_joined":
      case "member_changed":
        this.#roster.update(message.member);
        break;
      case "member_left":
        this.#roster.left(message.id, message.reason);
        break;
      case "video_paused":
      case "video_resumed":
        this.#roster.track(message.source, "video", message.slot)?.setServerPause(message.type === "video_paused" ? message.reason : undefined);
        break;
      case "speakers":
        // What is played here is measured here; without that, the server's word counts.
        if (this.#playback.blocked) this.#setSpeakers(message.ids);
        break;
      case "notice":
        this.emit("notice", { code: message.code, message: sentence(message.message) });
        break;
      case "uplink":
        this.uplink = { relay: message.relay, state: message.state, message: message.message };
        this.emit("uplink", this.uplink);
        break;
      case "error":
        // Fatal ones end the session, which then says so with its reason.
        if (!message.fatal) this.emit("error", new RoomError(message.code, sentence(message.message), false));
        break;
    }
  }

  #fromVideo(message: VideoToPage): void {
    const [id, kind, slot] = message.key.split(":");
    const track = this.#roster.track(Number(id), kind ?? "", Number(slot));
    switch (message.type) {
      case "size":
        if (track && this.#screens.shows(track)) track.setSize(message.width, message.height);
        break;
      case "first":
        if (track && this.#screens.shows(track)) {
          track.setFirst(message.at);
          this.#screens.streamLater(track);
        }
        void this.#startPlayback();
        break;
      case "live":
        setTimeout(() => this.#turns.release(), LiveRoom.AFTER_LIVE_MS);
        break;
      case "drawn":
        if (!track) break;
        this.#screens.drawn(track);
        if (this.#screens.shows(track)) track.setSize(message.width, message.height);
        break;
      case "supported":
        if (track && this.#screens.shows(track)) track.setUndecodable(false);
        break;
      case "unsupported":
        // No picture of now will come, and the screen is where the page says so.
        if (track) this.#screens.drawn(track);
        if (track && this.#screens.shows(track)) track.setUndecodable(true);
        this.emit("notice", {
          code: "codec_unsupported",
          message: `${this.#roster.participants.get(Number(id))?.alias ?? "Somebody"} sends ${message.codec.toUpperCase()} video, which this browser cannot show.`,
        });
        break;
    }
  }

  /** A picture of it should come now. */
  #isExpected(track: LiveTrack): boolean {
    const off = track.source === "camera" && this.#roster.participants.get(track.participantId)?.muted.video;
    return track.kind === "video" && track.pausedReason === undefined && off !== true;
  }

  #sendPaused(): void {
    const tracks = this.#roster.tracks.filter((track) => !track.wanted).map(({ participantId, kind, slot }) => ({ source: participantId, kind, slot }));
    this.#threads.toSession({ type: "pause", tracks });
  }

  #viewChanged(): void {
    this.#viewTimer ??= setTimeout(() => {
      this.#viewTimer = undefined;
      const tracks = this.#roster.tracks.flatMap(({ participantId, slot, side }) => (side === undefined ? [] : [{ source: participantId, slot, side }]));
      const view = JSON.stringify(tracks);
      if (view === this.#view || this.state === "closed") return;
      this.#view = view;
      this.#threads.toSession({ type: "view", tracks });
    }, LiveRoom.VIEW_MS);
  }

  #publicationChanged({ publication: number, state, codec, failure, limitReason }: FromSession & { type: "publication" }): void {
    const publication = this.#publications.get(number)?.publication;
    if (!publication) return;
    publication.told = { state, failure };
    publication.codec = codec;
    publication.limitReason = limitReason;
    if (codec !== "" && !publication.announced) {
      publication.announced = true;
      this.#road.announced(publication);
    }
    this.#localChanged();
  }

  #hear(levels: readonly [participant: number, level: number][]): void {
    const now = epochNow();
    for (const [id, level] of levels) {
      const participant = this.#roster.participants.get(id);
      if (participant?.hear(level, now)) this.#tellChange(participant);
    }
    if (this.#playback.blocked) return;
    const talking = [...this.#roster.participants.values()].filter((participant) => participant.speaking);
    const ids = talking.map((participant) => participant.id);
    // Only who talks matters, not every change of who is louder.
    const same = ids.length === this.#speakers.length && ids.every((id) => this.#speakers.includes(id));
    if (!same) this.#setSpeakers(talking.sort((a, b) => b.audioLevel - a.audioLevel).map((participant) => participant.id));
  }

  #setSpeakers(ids: number[]): void {
    this.#speakers = ids;
    this.emit("speakers", ids);
  }

  #freeSlot(kind: "audio" | "video", source: TrackSource): number {
    const used = new Set([...this.#publications.values()].filter(({ publication }) => publication.kind === kind).map(({ publication }) => publication.slot));
    const wanted = source === "screen" ? 1 : 0;
    for (const slot of [wanted, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]) if (!used.has(slot)) return slot;
    throw new RoomError("too_many_tracks", `No more than 15 ${kind} tracks can be published.`, false);
  }

  #captureAgain(number: number): void {
    const publication = this.#publications.get(number)?.publication;
    if (publication) void this.trackReplaced(publication);
  }

  #setCaptureFailure(publication: LivePublication, reason: string | undefined): void {
    if (publication.captureFailure === reason) return;
    publication.captureFailure = reason;
    this.#localChanged();
  }

  #listPublications(): void {
    if (this.#roster.local) this.#roster.local.publications = [...this.#publications.values()].map(({ publication }) => publication);
  }

  #localChanged(): void {
    if (this.#roster.local) this.#tellChange(this.#roster.local);
  }

  /** One joining, muting or unmuting arrives as many messages; they become one event. */
  #tellChange(participant: LiveParticipant): void {
    if (this.#changed.size === 0) {
      setTimeout(() => {
        const changed = [...this.#changed];
        this.#changed.clear();
        for (const each of changed) this.emit("participantchanged", each);
      }, LiveRoom.CHANGES_MS);
    }
    this.#changed.add(participant);
  }

  #isClosed(): boolean {
    return this.state === "closed";
  }

  #setState(state: RoomState): void {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", state);
  }

  #close(error: RoomError | undefined): void {
    if (this.state === "closed") return;
    this.closeReason = error;
    this.state = "closed";
    this.#changed.clear();
    clearTimeout(this.#deafTimer);
    clearTimeout(this.#viewTimer);
    this.#abort.abort();
    this.#road.close();
    this.#turns.close();
    this.#screens.close();
    for (const { capture } of this.#publications.values()) capture?.stop();
    void this.#playback.close();
    // The worker has its goodbye to send first, and pictures to give back.
    setTimeout(() => this.#threads.terminate(), LiveRoom.GOODBYE_MS);
    this.emit("state", "closed");
    this.#settle?.reject(error ?? new RoomError("aborted", "Left before having joined.", true));
    this.#settle = undefined;
  }
}

function guessSource(track: MediaStreamTrack): TrackSource {
  if (track.kind === "audio") return "microphone";
  return "displaySurface" in track.getSettings() ? "screen" : "camera";
}
