import type { ClientMessage, IceServer, Joined, ServerMessage } from "../control/messages.js";
import type { Playback } from "../playout/playback.js";
import type { LivePublication } from "../room/publication.js";
import type { LiveTrack } from "../room/remote-track.js";
import type { Roster } from "../room/roster.js";
import { sinceJoined } from "../room/stats.js";
import type { Turns } from "../room/turns.js";
import type { MediaTransport, SendStats, SourceStats } from "../types.js";
import type { HeldSound, MeasuredSound, PlayedSound } from "../workers/messages.js";
import { Peer, type Outbound } from "./peer.js";
import { RemoteMedia } from "./remote-media.js";

/** What the WebRTC road needs of its room. */
export interface RoadHost {
  send(message: ClientMessage): void;
  publications(): Iterable<LivePublication>;
  /** WebRTC carries this publication (`codec`), or does so no more (`undefined`): only one road sends at a time. */
  carried(publication: LivePublication, codec: string | undefined): void;
  /** WebRTC carries this publication, but nothing comes of it; `undefined`: all is well. */
  failing(publication: LivePublication, reason: string | undefined): void;
  /** Back to its canvas: at once, or when that has a picture of now; until then `last` is shown. */
  released(track: LiveTrack, last?: HTMLCanvasElement): void;
  /** WebRTC will carry a picture; `drawn` is to be called if its canvas has one from now, too. */
  taken(participant: number, slot: number, drawn: () => void): void;
  /** The complete list of those whose voice WebRTC carries. */
  voices(participants: number[]): void;
  /** Those of them of whom it does not carry the picture, twice a second. */
  held(sounds: HeldSound[]): void;
  transport(media: MediaTransport, reason: string): void;
  /** The network may have changed without the browser saying so. */
  interrupted(): void;
  levels(levels: readonly [participant: number, level: number][]): void;
}

/** Media by WebRTC for one room: begins at every join, gives way to the WebSocket where it does not work. */
export class WebRtcRoad {
  /** Not connected within this time: the WebSocket goes on carrying media, and the page says why, ms. */
  static readonly AUTO_MS = 3000;
  /** A slow device, or a slow path, may take so long all the same: then WebRTC takes over after all, ms. The gateway waits 15 s for it. */
  static readonly LATE_MS = 15_000;
  /** The same when the caller asked for WebRTC and nothing else, ms. */
  static readonly FORCED_MS = WebRtcRoad.LATE_MS;
  /** Receiving m-lines to begin with beyond the tracks that are there: somebody may join. */
  static readonly SPARE = 1;

  #peer: Peer | undefined;
  #remote: RemoteMedia | undefined;
  #iceServers: IceServer[] = [];
  #videoCodec: string | undefined;
  #active = false;
  #trying = false;
  /** Counts joins, so that what was put off for one that is over is not done. */
  #stay = 0;
  readonly #carried = new Set<number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #levels: ReturnType<typeof setInterval> | undefined;

  constructor(
    readonly mode: "auto" | MediaTransport,
    readonly host: RoadHost,
    readonly roster: Roster,
    readonly playback: Playback,
    readonly turns: Turns,
  ) {}

  /** Joined, for the first time or again. */
  begin(joined: Joined): void {
    this.#stop();
    if (this.mode === "websocket") return this.host.transport("websocket", "requested");
    if (!joined.webrtc) return this.host.transport("websocket", "this gateway offers no WebRTC");
    if (typeof RTCPeerConnection === "undefined") return this.host.transport("websocket", "this browser has no WebRTC");
    this.#trying = true;
    this.host.transport("websocket", "until WebRTC is connected");
    this.#iceServers = joined.ice_servers;
    const stay = ++this.#stay;
    // The page has enough to do at this moment.
    this.turns.addLater(() => {
      if (stay !== this.#stay) return;
      this.#expect(this.mode === "auto" ? WebRtcRoad.AUTO_MS : WebRtcRoad.FORCED_MS);
      this.#start();
    });
    this.#levels = setInterval(() => this.host.levels(this.#remote?.levels() ?? []), 100);
  }

  message(message: ServerMessage): void {
    switch (message.type) {
      case "answer":
        void this.#peer?.answer(message.sdp);
        break;
      case "mids":
        for (const mid of this.#remote?.update(message.mids) ?? []) this.#peer?.stats.rebase(mid);
        this.#tellVoices();
        break;
      case "need_mids":
        this.#peer?.need(message.audio, message.video);
        break;
      case "limit":
        // In turn, so that there is a peer to take it.
        this.turns.addLater(() => this.#peer?.limit(message.slot, message.max_bitrate, message.max_side));
        break;
      case "error":
        if (message.code === "webrtc_failed" || message.code === "webrtc_unavailable") this.#giveUp(message.message || message.code);
        break;
    }
  }

  /** WebRTC carries media, or may do so yet. */
  get isOpen(): boolean {
    return this.#trying;
  }

  /** Whether WebRTC sends this publication. */
  carries(publication: LivePublication): boolean {
    return this.#carried.has(publication.number);
  }

  published(publication: LivePublication): void {
    this.#peer?.publish(outbound(publication));
  }

  /** The server has been told of this publication. */
  announced(publication: LivePublication): void {
    this.#peer?.announced(publication.number);
  }

  unpublished(publication: LivePublication): void {
    this.#carried.delete(publication.number);
    this.#peer?.unpublish(publication.number);
  }

  /** The track or its mute changed. */
  changed(publication: LivePublication): void {
    if (this.carries(publication)) void this.#peer?.feed(publication.number, publication.muted ? null : publication.track).catch(() => undefined);
  }

  /** The codec that this browser encodes video promptly with. */
  prefer(videoCodec: string): void {
    this.#videoCodec = videoCodec;
    this.#peer?.prefer(videoCodec);
  }

  networkChanged(): void {
    this.#peer?.restartIce();
  }

  get rttMs(): number | undefined {
    return this.#active && this.#peer && this.#peer.stats.rttMs > 0 ? this.#peer.stats.rttMs : undefined;
  }

  /** Sound that was played just now, for {@link sources}. */
  played(): PlayedSound[] {
    return this.#remote?.played() ?? [];
  }

  sources(joinedAt: number, measured: readonly MeasuredSound[]): SourceStats[] {
    return (this.#remote?.carried ?? []).flatMap((bound): SourceStats[] => {
      const figures = this.#peer?.stats.inbound(bound.mid);
      const participant = this.roster.participants.get(bound.participant);
      if (!figures || !participant) return [];
      const sound = measured.find(({ mid }) => mid === bound.mid);
      const at = participant.track(bound.kind, bound.slot)?.firstShownAt || bound.firstAt;
      return [
        {
          id: participant.id, alias: participant.alias, kind: bound.kind, slot: bound.slot, ...figures, decodeErrors: 0,
          width: bound.video?.videoWidth ?? figures.width, height: bound.video?.videoHeight ?? figures.height,
          firstFrameMs: sinceJoined(at, joinedAt),
          audioLevel: sound?.audioLevel ?? 0, dominantHz: sound?.dominantHz ?? 0,
        },
      ];
    });
  }

  sending(): SendStats[] {
    return [...this.host.publications()].flatMap((publication): SendStats[] => {
      const mid = this.carries(publication) ? this.#peer?.midOf(publication.number) : undefined;
      const figures = mid === undefined ? undefined : this.#peer?.stats.outbound(mid);
      if (!figures) return [];
      const { kind, source, slot, codec } = publication;
      return [{ kind, source, slot, skipped: 0, ...figures, codec: figures.codec || codec }];
    });
  }

  close(): void {
    this.#stop();
  }

  #start(): void {
    const peer = new Peer(
      {
        send: (message) => this.host.send(message),
        connected: () => this.#connected(),
        read: () => this.#tellHeld(),
        interrupted: () => this.host.interrupted(),
        failed: (reason) => this.#giveUp(reason),
        failing: (number, reason) => {
          for (const publication of this.host.publications()) if (publication.number === number) this.host.failing(publication, this.carries(publication) ? reason : undefined);
        },
      },
      this.turns,
      { iceServers: this.#iceServers, videoCodec: this.#videoCodec },
    );
    this.#peer = peer;
    this.#remote = new RemoteMedia(this.playback, this.turns, (mid) => peer.track(mid), (id, kind, slot) => this.roster.track(id, kind, slot), (track, last) => this.host.released(track, last), (participant, slot, drawn) => this.host.taken(participant, slot, drawn));
    // Making the connection was work enough for one turn.
    this.turns.add(() => {
      if (this.#peer !== peer) return;
      const tracks = this.roster.tracks;
      const count = (kind: string): number => tracks.filter((track) => track.kind === kind).length + WebRtcRoad.SPARE;
      peer.start(count("audio"), count("video"), [...this.host.publications()].map(outbound));
    });
  }

  #tellVoices(): void {
    const voices = (this.#remote?.carried ?? []).filter((bound) => bound.kind === "audio" && bound.slot === 0);
    this.host.voices(voices.map((bound) => bound.participant));
  }

  #tellHeld(): void {
    const carried = this.#remote?.carried ?? [];
    const seen = new Set(carried.filter((bound) => bound.kind === "video" && bound.slot === 0).map((bound) => bound.participant));
    const sounds = carried.flatMap(({ mid, participant, kind, slot }): HeldSound[] => {
      if (kind !== "audio" || slot !== 0 || seen.has(participant) || !this.roster.track(participant, "video", 0)) return [];
      const delay = this.#peer?.stats.inbound(mid)?.delayMs ?? 0;
      return delay > 0 ? [{ participant, ms: delay + this.playback.deviceMs }] : [];
    });
    if (sounds.length > 0) this.host.held(sounds);
  }

  #expect(within: number): void {
    this.#timer = setTimeout(() => {
      const reason = "WebRTC did not connect in time (UDP may be blocked)";
      if (this.mode !== "auto") return this.#giveUp(reason);
      this.host.transport("websocket", reason);
      this.#timer = setTimeout(() => this.#giveUp(reason), WebRtcRoad.LATE_MS - within);
    }, within);
  }

  #connected(): void {
    const peer = this.#peer;
    if (!peer) return;
    clearTimeout(this.#timer);
    if (!this.#active) {
      this.#active = true;
      this.host.send({ type: "transport", media: "webrtc" });
      this.host.transport("webrtc", "connected");
    }
    for (const publication of this.host.publications()) {
      if (this.#carried.has(publication.number)) continue;
      const codec = peer.codec(publication.number);
      if (codec === undefined) continue;
      this.#carried.add(publication.number);
      // First the encoders stop, then RTP begins: never both at once.
      this.host.carried(publication, codec);
      this.changed(publication);
    }
  }

  #giveUp(reason: string): void {
    if (this.#levels === undefined) return;
    const wasActive = this.#active;
    this.#stop();
    if (wasActive) this.host.send({ type: "transport", media: "websocket" });
    this.host.transport("websocket", reason);
  }

  #stop(): void {
    this.#stay++;
    clearTimeout(this.#timer);
    clearInterval(this.#levels);
    this.#levels = undefined;
    this.#active = this.#trying = false;
    this.#remote?.close();
    this.#remote = undefined;
    this.#tellVoices();
    this.#peer?.close();
    this.#peer = undefined;
    const carried = new Set(this.#carried);
    this.#carried.clear();
    for (const publication of this.host.publications()) if (carried.has(publication.number)) this.host.carried(publication, undefined);
  }
}

function outbound({ number, kind, slot, maxBitrate, fps, source, announced }: LivePublication): Outbound {
  return { number, kind, slot, maxBitrate, fps, source, announced };
}
