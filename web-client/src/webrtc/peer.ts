import type { ClientMessage, IceServer } from "../control/messages.js";
import { bitrateOfSide } from "../media/picture-size.js";
import type { Turns } from "../room/turns.js";
import type { TrackKind } from "../types.js";
import { codecOfMime, preferAudio, preferSending, preferVideo } from "./codecs.js";
import { RepairDelay } from "./repair-delay.js";
import { RtpStats } from "./rtp-stats.js";
import { SendWatch } from "./send-watch.js";

/** A local track to be sent. */
export interface Outbound {
  number: number;
  kind: TrackKind;
  slot: number;
  maxBitrate: number;
  fps: number;
  source: string;
  /** The server has been told of it by `publish`. */
  announced: boolean;
}

/** What a peer connection is made with. */
export interface PeerSettings {
  iceServers: IceServer[];
  /** The codec that this browser encodes video promptly with, once that is known. */
  videoCodec: string | undefined;
}

export interface PeerEvents {
  send(message: ClientMessage): void;
  connected(): void;
  /** Nothing comes out of a sender, for this reason; `undefined`: it is well. */
  failing(number: number, reason: string | undefined): void;
  /** Statistics were read. */
  read(): void;
  /** Nothing comes from the gateway any more; it may come back. */
  interrupted(): void;
  /** It will not work, or works no more. */
  failed(reason: string): void;
}

/** One peer connection with the gateway (protocol, section 7): always offers, keeps a pool of receiving m-lines, restarts ICE. */
export class Peer {
  /** How long an interrupted connection may take to come back by itself before ICE is restarted, ms. */
  static readonly RESTART_MS = 2000;
  /** How long a restart may take before the connection is given up, ms. */
  static readonly GIVE_UP_MS = 8000;
  /** Figures are read this often: loss is to be noticed before it freezes the picture, ms. */
  static readonly STATS_MS = 500;

  /** Receiving m-lines of one kind. What the gateway has beyond them comes over the WebSocket: an offer must not grow without bound. */
  static readonly MAX_RECEIVING = 32;
  /** The gateway takes offers of at most this many bytes, less what the message adds. */
  static readonly MAX_OFFER = 240_000;

  readonly stats = new RtpStats();
  readonly #repairDelay = new RepairDelay();
  #holdTarget: number | null = null;
  #held: number | null = null;
  #holdTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #pc: RTCPeerConnection;
  #videoCodec: string | undefined;
  readonly #senders = new Map<number, { outbound: Outbound; transceiver: RTCRtpTransceiver; watch: SendWatch; bounding: Promise<void> }>();
  /** The server's bounds by video slot: bit/s, and px of the shorter side. */
  readonly #limits = new Map<number, { bitrate: number; maxSide: number | undefined }>();
  /** Until the first offer is complete there is none. */
  #negotiating = true;
  #again = false;
  #restart = false;
  #wasConnected = false;
  #closed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #statsTimer: ReturnType<typeof setInterval>;

  constructor(
    readonly events: PeerEvents,
    readonly turns: Turns,
    { iceServers, videoCodec }: PeerSettings,
  ) {
    this.#videoCodec = videoCodec;
    this.#pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers });
    this.#pc.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) events.send({ type: "candidate", candidate: candidate.candidate });
    };
    this.#pc.onconnectionstatechange = () => this.#watch();
    this.#pc.oniceconnectionstatechange = () => this.#watch();
    this.#statsTimer = setInterval(() => void this.#readStats(), Peer.STATS_MS);
  }

  get isConnected(): boolean {
    return this.#pc.connectionState === "connected";
  }

  /** Makes the first offer, with room for so many tracks. */
  start(audio: number, video: number, outbound: readonly Outbound[]): void {
    for (let i = 1; i <= Math.min(audio, Peer.MAX_RECEIVING); i++) this.turns.add(() => this.#grow("audio", i));
    for (let i = 1; i <= Math.min(video, Peer.MAX_RECEIVING); i++) this.turns.add(() => this.#grow("video", i));
    for (const one of outbound) this.#addSender(one);
    this.turns.add(() => {
      this.#negotiating = false;
      void this.#negotiate();
    });
  }

  /** The codec that this browser encodes video promptly with has been found out. */
  prefer(videoCodec: string): void {
    // Until it is known, senders are set up as for H.264.
    const changes = (videoCodec === "av1") !== (this.#videoCodec === "av1");
    this.#videoCodec = videoCodec;
    if (this.#closed || !changes) return;
    const videos = [...this.#senders.values()].filter(({ outbound }) => outbound.kind === "video");
    for (const { transceiver } of videos) this.#preferCodecs(transceiver, "video", "send");
    if (videos.length > 0) void this.#negotiate();
  }

  publish(outbound: Outbound): void {
    this.#addSender(outbound);
    void this.#negotiate();
  }

  /** The server has been told of this publication. What an earlier offer said of it was not understood. */
  announced(number: number): void {
    const sender = this.#senders.get(number);
    if (!sender || sender.outbound.announced) return;
    sender.outbound.announced = true;
    void this.#negotiate();
  }

  unpublish(number: number): void {
    const sender = this.#senders.get(number);
    if (!sender) return;
    this.#senders.delete(number);
    sender.transceiver.stop();
    void this.#negotiate();
  }

  /** Sends this track (or, with `null`, nothing) for a publication. */
  async feed(number: number, track: MediaStreamTrack | null): Promise<void> {
    const sender = this.#senders.get(number);
    sender?.watch.restart();
    await sender?.transceiver.sender.replaceTrack(track);
    if (sender && track) await this.#bound(number);
  }

  limit(slot: number, bitrate: number, maxSide: number | undefined): void {
    this.#limits.set(slot, { bitrate, maxSide });
    for (const [number, { outbound }] of this.#senders) if (outbound.kind === "video" && outbound.slot === slot) void this.#bound(number);
  }

  /** The codec that a publication is sent with; `undefined` while it is not negotiated. */
  codec(number: number): string | undefined {
    const sender = this.#senders.get(number);
    if (!sender || sender.transceiver.currentDirection !== "sendonly") return undefined;
    const mime = sender.transceiver.sender.getParameters().codecs[0]?.mimeType;
    const name = mime === undefined ? "" : codecOfMime(mime);
    return name === "" ? undefined : name;
  }

  midOf(number: number): string | undefined {
    return this.#senders.get(number)?.transceiver.mid ?? undefined;
  }

  /** The track that a receiving m-line carries. */
  track(mid: string): MediaStreamTrack | undefined {
    return this.#pc.getTransceivers().find((transceiver) => transceiver.mid === mid)?.receiver.track;
  }

  async answer(sdp: string): Promise<void> {
    if (this.#closed || this.#pc.signalingState !== "have-local-offer") return;
    try {
      await this.#pc.setRemoteDescription({ type: "answer", sdp });
    } catch (error) {
      this.#fail(`the gateway's answer was not understood: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    this.#negotiating = false;
    if (this.#again) void this.#negotiate();
    // Codecs are known only now.
    else if (this.isConnected) this.events.connected();
  }

  /** The gateway has more tracks than we have receiving m-lines. */
  need(audio: number, video: number): void {
    if (this.#grow("audio", audio) + this.#grow("video", video) > 0) void this.#negotiate();
  }

  /** The network changed. */
  restartIce(): void {
    if (this.#closed || !this.#wasConnected) return;
    this.#restart = true;
    void this.#negotiate();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#holdTimer);
    clearInterval(this.#statsTimer);
    this.#pc.onicecandidate = this.#pc.onconnectionstatechange = this.#pc.oniceconnectionstatechange = null;
    this.#pc.close();
  }

  #addSender(outbound: Outbound): void {
    // What was published while the connection was being made is there already.
    if (this.#senders.has(outbound.number)) return;
    // Without a track, nothing is sent before the other road has stopped sending.
    const transceiver = this.#pc.addTransceiver(outbound.kind, { direction: "sendonly" });
    this.#preferCodecs(transceiver, outbound.kind, "send");
    this.#senders.set(outbound.number, { outbound, transceiver, watch: new SendWatch(), bounding: Promise.resolve() });
  }

  /** Sees to it that there are so many receiving m-lines of a kind. @returns how many were added */
  #grow(kind: TrackKind, count: number): number {
    if (this.#closed) return 0;
    const have = this.#pc.getTransceivers().filter((transceiver) => transceiver.direction === "recvonly" && transceiver.receiver.track.kind === kind).length;
    const wanted = Math.min(count, Peer.MAX_RECEIVING);
    for (let i = have; i < wanted; i++) this.#preferCodecs(this.#pc.addTransceiver(kind, { direction: "recvonly" }), kind, "receive");
    return Math.max(0, wanted - have);
  }

  async #negotiate(): Promise<void> {
    if (this.#closed) return;
    if (this.#negotiating) {
      this.#again = true;
      return;
    }
    this.#negotiating = true;
    this.#again = false;
    const iceRestart = this.#restart;
    this.#restart = false;
    try {
      await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart }));
    } catch (error) {
      this.#fail(`no offer could be made: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    const sdp = this.#pc.localDescription?.sdp ?? "";
    // The gateway would end the whole session over it.
    if (sdp.length > Peer.MAX_OFFER) return this.#fail("the offer is too large for the gateway");
    const send = [...this.#senders.values()].flatMap(({ outbound, transceiver }) =>
      transceiver.mid === null || !outbound.announced ? [] : [{ mid: transceiver.mid, kind: outbound.kind, slot: outbound.slot }],
    );
    this.events.send({ type: "offer", sdp, send });
  }

  /** One after another: parameters that were read before others were set are refused. */
  #bound(number: number): Promise<void> {
    const found = this.#senders.get(number);
    if (!found) return Promise.resolve();
    found.bounding = found.bounding.then(() => this.#setBounds(found.outbound, found.transceiver));
    return found.bounding;
  }

  async #setBounds(outbound: Outbound, transceiver: RTCRtpTransceiver): Promise<void> {
    if (this.#closed) return;
    const parameters = transceiver.sender.getParameters();
    const encoding = parameters.encodings[0];
    if (!encoding) return;
    encoding.maxBitrate = outbound.maxBitrate;
    if (outbound.kind === "video") {
      const limit = this.#limits.get(outbound.slot);
      const maxSide = outbound.source === "screen" ? undefined : limit?.maxSide;
      const { width = 0, height = 0 } = transceiver.sender.track?.getSettings() ?? {};
      encoding.maxBitrate = Math.min(outbound.maxBitrate, limit?.bitrate ?? Infinity, bitrateOfSide(maxSide));
      encoding.scaleResolutionDownBy = Math.max(1, Math.min(width, height) / (maxSide ?? Infinity));
      encoding.maxFramerate = outbound.fps;
      parameters.degradationPreference = outbound.source === "screen" ? "maintain-resolution" : "balanced";
    }
    // Some browsers refuse what they do not know; the server's own bound then has to do.
    await transceiver.sender.setParameters(parameters).catch(() => undefined);
  }

  #watch(): void {
    if (this.#closed) return;
    const { connectionState, iceConnectionState } = this.#pc;
    if (connectionState === "connected" && iceConnectionState !== "disconnected") {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#wasConnected = true;
      this.events.connected();
    } else if (connectionState === "failed" && !this.#wasConnected) {
      this.#fail("no connection could be made");
    } else if ((iceConnectionState === "disconnected" || connectionState === "failed") && this.#timer === undefined) {
      this.events.interrupted();
      this.#timer = setTimeout(
        () => {
          this.restartIce();
          this.#timer = setTimeout(() => this.#fail("the connection was lost"), Peer.GIVE_UP_MS);
        },
        connectionState === "failed" ? 0 : Peer.RESTART_MS,
      );
    }
  }

  async #readStats(): Promise<void> {
    const report = await this.#pc.getStats().catch(() => undefined);
    if (!report || this.#closed) return;
    const now = performance.now();
    this.stats.read(report.values(), now);
    this.#holdForRepair();
    this.#watchSenders(now);
    this.events.read();
  }

  #watchSenders(now: number): void {
    for (const [number, { outbound, transceiver, watch }] of this.#senders) {
      const { mid, sender } = transceiver;
      const counts = mid === null ? undefined : this.stats.sent(mid);
      const limited = mid !== null && this.stats.outbound(mid)?.limitReason === "bandwidth";
      const delivers = sender.track?.readyState === "live" && sender.track.enabled && !sender.track.muted;
      const failing = watch.update(counts?.out ?? 0, counts?.input ?? 0, this.isConnected && delivers && !limited, now);
      this.events.failing(number, failing ? `The browser makes no ${outbound.kind === "video" ? "picture" : "sound"} of it.` : undefined);
    }
  }

  #holdForRepair(): void {
    const { packets, lost } = this.stats.received();
    this.#holdTarget = this.#repairDelay.next(packets, lost, this.stats.rttMs, performance.now());
    clearTimeout(this.#holdTimer);
    this.#hold();
  }

  /** Sound and picture are held back alike, so that they stay together. */
  #hold(): void {
    if (this.#closed) return;
    this.#held = RepairDelay.toward(this.#holdTarget, this.#held);
    for (const { receiver } of this.#pc.getTransceivers()) {
      if ("jitterBufferTarget" in receiver && receiver.jitterBufferTarget !== this.#held) receiver.jitterBufferTarget = this.#held;
    }
    if (this.#held !== this.#holdTarget) this.#holdTimer = setTimeout(() => this.#hold(), RepairDelay.STEP_EVERY_MS);
  }

  #preferCodecs(transceiver: RTCRtpTransceiver, kind: TrackKind, direction: "send" | "receive"): void {
    const codecs = (direction === "send" ? RTCRtpSender : RTCRtpReceiver).getCapabilities(kind)?.codecs ?? [];
    const preferred = kind === "audio" ? preferAudio(codecs) : direction === "send" ? preferSending(codecs, this.#videoCodec) : preferVideo(codecs);
    if (preferred.length === 0) return;
    try {
      transceiver.setCodecPreferences(preferred);
    } catch {
      // Then the browser's own order it is; the gateway takes what it knows.
    }
  }

  #fail(reason: string): void {
    if (this.#closed) return;
    this.close();
    this.events.failed(reason);
  }
}
