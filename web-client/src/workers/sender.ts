import type { TrackInfo } from "../control/messages.js";
import { AudioSender } from "../encode/audio-sender.js";
import { chooseVideoCodec } from "../encode/probe.js";
import { Uplink } from "../encode/uplink.js";
import { VideoSender } from "../encode/video-sender.js";
import type { SendWindow } from "../media/acknowledge.js";
import type { Publication, SendStats } from "../types.js";
import { epochNow, type CapturedMedia, type CaptureFeed, type FromSession, type PublicationSpec, type TrackSwitch } from "./messages.js";

interface Outgoing {
  spec: PublicationSpec;
  codec: string;
  muted: boolean;
  state: Publication["state"];
  failure: string | undefined;
  /** WebRTC carries it: nothing is encoded here. */
  carried: boolean;
  audio: AudioSender | undefined;
  video: VideoSender | undefined;
  /** Counts feeds, so that one that was replaced stops. */
  feed: number;
  stopFeed: (() => void) | undefined;
  /** After a failure that may pass: when to try again of one's own accord, and how long to wait after the next failure, ms. */
  again: { at: number; waitMs: number } | undefined;
}

/** A `limit` of the server. */
interface Limit {
  bitrate: number;
  reason: string;
  maxSide: number | undefined;
}

export interface SenderEvents {
  /** The list of what is sent, or what is muted, changed. */
  announce(): void;
  toPage(message: FromSession): void;
}

/** Everything that this page publishes: reads captured media, encodes it and sends it, unless WebRTC carries it. */
export class Sender {
  /** A failed encoder is tried again after this time, then after twice as long each time, up to the second figure, ms. */
  static readonly AGAIN_MS = 5000;
  static readonly AGAIN_MOST_MS = 60_000;
  /** How long a feed that ends may take to give its last picture, ms. */
  static readonly LAST_MS = 300;

  readonly uplink: Uplink;
  readonly #outgoing = new Map<number, Outgoing>();
  /** The last one of this connection by video slot, for senders made later. */
  readonly #limits = new Map<number, Limit>();

  constructor(
    readonly send: (data: ArrayBuffer) => boolean,
    readonly window: () => SendWindow,
    readonly events: SenderEvents,
  ) {
    this.uplink = new Uplink(send, window, epochNow, (slot) => this.requestKeyframe(slot));
  }

  /** The complete list for the `publish` message. */
  get tracks(): TrackInfo[] {
    return [...this.#outgoing.values()]
      .filter((outgoing) => outgoing.codec !== "" && outgoing.state !== "failed")
      .map(({ spec, codec, video }) => {
        const { kind, source, slot } = spec;
        const size = video && video.width > 0 ? video : spec;
        return kind === "video" && size.width ? { kind, source, slot, codec, width: size.width, height: size.height } : { kind, source, slot, codec };
      });
  }

  /** What others should show as switched off. Nothing published is "off", too. */
  get muted(): { audio: boolean; video: boolean } {
    const all = [...this.#outgoing.values()].filter((outgoing) => outgoing.spec.source !== "screen");
    const off = (kind: string): boolean => all.filter((outgoing) => outgoing.spec.kind === kind).every((outgoing) => outgoing.muted);
    return { audio: off("audio"), video: off("video") };
  }

  /** A new connection: all video begins with keyframes, and nothing is limited until the server says so. */
  begin(): void {
    for (const slot of this.#limits.keys()) this.#bySlot(slot)?.video?.setLimit(Infinity, "server", undefined);
    this.#limits.clear();
    const slots = [...this.#outgoing.values()].filter((outgoing) => outgoing.spec.kind === "video").map((outgoing) => outgoing.spec.slot);
    this.uplink.reset(slots);
    for (const outgoing of this.#outgoing.values()) outgoing.video?.requestKeyframe();
  }

  async publish(spec: PublicationSpec): Promise<void> {
    const outgoing: Outgoing = {
      spec, codec: "", muted: false, state: "starting", failure: undefined, carried: false,
      audio: undefined, video: undefined, feed: 0, stopFeed: undefined, again: undefined,
    };
    this.#outgoing.set(spec.publication, outgoing);
    if (spec.kind === "audio") {
      if (typeof AudioEncoder === "undefined") this.#fail(outgoing, "This browser cannot encode Opus sound.");
      else this.#started(outgoing, "opus");
      return;
    }
    const codec = await chooseVideoCodec();
    if (this.#outgoing.get(spec.publication) !== outgoing || outgoing.codec !== "") return;
    if (codec === undefined) this.#fail(outgoing, "This browser can encode neither H.264 nor AV1.");
    else this.#started(outgoing, codec);
  }

  /** Takes captured media from this feed from now on. */
  feed(publication: number, feed: CaptureFeed): void {
    const outgoing = this.#outgoing.get(publication);
    if (!outgoing) return;
    outgoing.stopFeed?.();
    this.#revive(outgoing);
    const number = ++outgoing.feed;
    const take = (media: CapturedMedia | VideoFrame | AudioData): void => {
      if (number === outgoing.feed) this.#take(outgoing, media);
      else close(media);
    };
    if (feed.road === "port") {
      feed.port.onmessage = (event: MessageEvent<CapturedMedia>) => take(event.data);
      outgoing.stopFeed = () => feed.port.close();
      return;
    }
    if (feed.road === "track" && typeof MediaStreamTrackProcessor === "undefined") {
      feed.track.stop();
      this.events.toPage({ type: "unreadable", publication });
      return;
    }
    const readable: ReadableStream<VideoFrame | AudioData> = feed.road === "stream" ? feed.readable : new MediaStreamTrackProcessor({ track: feed.track }).readable;
    const reader = readable.getReader();
    let state: TrackSwitch = "on";
    const cancel = (): void => {
      void reader.cancel().catch(() => undefined);
      if (feed.road === "track") feed.track.stop();
    };
    outgoing.stopFeed = () => {
      // What is on its way when a stream is cancelled is lost unclosed, so the next picture is waited for, if there is one.
      if (number === outgoing.feed) outgoing.feed++;
      setTimeout(cancel, Sender.LAST_MS);
    };
    if (feed.road === "track") {
      feed.switches.onmessage = ({ data }: MessageEvent<TrackSwitch>) => {
        state = data;
        if (data === "ended") feed.track.stop();
      };
    }
    void (async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        if (isOn(state)) take(value);
        else value.close();
        if (number !== outgoing.feed) {
          cancel();
          return;
        }
      }
    })().catch(() => undefined);
  }

  setCarried(publication: number, codec: string | undefined): void {
    const outgoing = this.#outgoing.get(publication);
    if (!outgoing) return;
    outgoing.carried = codec !== undefined;
    if (codec !== undefined) {
      // Sound is read on, for its level; pictures would be read for nothing.
      outgoing.video?.close();
      outgoing.video = undefined;
      if (outgoing.spec.kind === "video") outgoing.stopFeed?.();
      this.#started(outgoing, codec);
    } else if (outgoing.spec.kind === "video") {
      void chooseVideoCodec().then((own) => {
        if (outgoing.carried) return;
        if (own) this.#started(outgoing, own);
        else this.#fail(outgoing, "This browser can encode neither H.264 nor AV1.");
      });
    }
  }

  mute(publication: number, on: boolean): void {
    const outgoing = this.#outgoing.get(publication);
    if (!outgoing) return;
    outgoing.muted = on;
    if (outgoing.audio) outgoing.audio.muted = on;
    if (!on) {
      outgoing.video?.requestKeyframe();
      this.#revive(outgoing);
    }
    if (outgoing.state !== "failed" && outgoing.state !== "starting") outgoing.state = on ? "muted" : "sending";
    this.#report(outgoing);
    this.events.announce();
  }

  unpublish(publication: number): void {
    const outgoing = this.#outgoing.get(publication);
    if (!outgoing) return;
    outgoing.stopFeed?.();
    this.#closeEncoders(outgoing);
    this.#outgoing.delete(publication);
    this.events.announce();
  }

  requestKeyframe(slot: number): void {
    this.#bySlot(slot)?.video?.requestKeyframe();
  }

  limit(slot: number, bitrate: number, reason: string, maxSide: number | undefined): void {
    this.#limits.set(slot, { bitrate, reason, maxSide });
    this.#bySlot(slot)?.video?.setLimit(bitrate, reason, maxSide);
  }

  stats(): SendStats[] {
    const now = epochNow();
    return [...this.#outgoing.values()]
      .filter((outgoing) => !outgoing.carried)
      .map(({ spec, codec, audio, video }) => ({
        kind: spec.kind, source: spec.source, slot: spec.slot, codec,
        bitrate: audio?.bitrate(now) ?? video?.bitrate(now) ?? 0,
        fps: audio?.packetsPerSecond(now) ?? video?.fps(now) ?? 0,
        width: video?.width ?? 0, height: video?.height ?? 0,
        skipped: video?.skipped ?? this.uplink.droppedAudio, keyframes: video?.keyframes ?? 0,
        ...(video?.limitReason === undefined ? {} : { limitReason: video.limitReason }),
      }));
  }

  close(): void {
    for (const publication of [...this.#outgoing.keys()]) this.unpublish(publication);
  }

  #bySlot(slot: number): Outgoing | undefined {
    return [...this.#outgoing.values()].find((outgoing) => outgoing.spec.kind === "video" && outgoing.spec.slot === slot);
  }

  #take(outgoing: Outgoing, media: CapturedMedia | VideoFrame | AudioData): void {
    if (media instanceof VideoFrame) this.#picture(outgoing, media);
    else if ("frame" in media) this.#picture(outgoing, media.frame);
    else if ("samples" in media) this.#sound(outgoing, media.samples, media.sampleRate);
    else {
      const samples = mono(media);
      const { sampleRate } = media;
      media.close();
      this.#sound(outgoing, samples, sampleRate);
    }
  }

  #picture(outgoing: Outgoing, frame: VideoFrame): void {
    if (outgoing.carried || outgoing.muted || !this.#mayEncode(outgoing) || (outgoing.codec !== "h264" && outgoing.codec !== "av1")) {
      frame.close();
      return;
    }
    if (!outgoing.video) {
      const { slot, source, maxBitrate, fps } = outgoing.spec;
      outgoing.video = new VideoSender({
        slot, source, codec: outgoing.codec, maxBitrate, fps, uplink: this.uplink, window: this.window, now: epochNow,
        onOutput: () => this.#recovered(outgoing),
        onFailure: (reason) => this.#failForNow(outgoing, reason),
        onChange: () => {
          this.#report(outgoing);
          this.events.announce();
        },
      });
      const limit = this.#limits.get(slot);
      if (limit) outgoing.video.setLimit(limit.bitrate, limit.reason, limit.maxSide);
    }
    outgoing.video.push(frame);
  }

  #sound(outgoing: Outgoing, samples: Float32Array, sampleRate: number): void {
    outgoing.audio ??= new AudioSender({
      slot: outgoing.spec.slot, bitrate: outgoing.spec.maxBitrate, uplink: this.uplink, now: epochNow,
      onOutput: () => this.#recovered(outgoing),
      onFailure: (reason) => this.#failForNow(outgoing, reason),
      onLevel: (level) => {
        if (outgoing.spec.source === "microphone") this.events.toPage({ type: "local-level", level: outgoing.muted ? 0 : level });
      },
    });
    // The level is measured either way; WebRTC has its own encoder.
    outgoing.audio.muted = outgoing.muted || outgoing.carried || !this.#mayEncode(outgoing);
    outgoing.audio.push(samples, sampleRate);
  }

  #started(outgoing: Outgoing, codec: string): void {
    if (outgoing.codec !== codec) {
      outgoing.video?.close();
      outgoing.video = undefined;
    }
    outgoing.codec = codec;
    outgoing.state = outgoing.muted ? "muted" : "sending";
    outgoing.failure = undefined;
    outgoing.again = undefined;
    this.#report(outgoing);
    this.events.announce();
  }

  /** What failed is tried quietly now and then: for the others it is there again only when the encoder gives something. */
  #mayEncode({ state, again }: Outgoing): boolean {
    return state !== "failed" || (again !== undefined && epochNow() >= again.at);
  }

  /** Something changed that may have mended a failure: a fresh start. */
  #revive(outgoing: Outgoing): void {
    if (outgoing.state === "failed" && outgoing.again) this.#started(outgoing, outgoing.codec);
  }

  #recovered(outgoing: Outgoing): void {
    if (outgoing.state === "failed") this.#started(outgoing, outgoing.codec);
  }

  #failForNow(outgoing: Outgoing, reason: string): void {
    const waitMs = outgoing.again?.waitMs ?? Sender.AGAIN_MS;
    outgoing.again = { at: epochNow() + waitMs, waitMs: Math.min(2 * waitMs, Sender.AGAIN_MOST_MS) };
    this.#fail(outgoing, reason);
  }

  #fail(outgoing: Outgoing, reason: string): void {
    this.#closeEncoders(outgoing);
    outgoing.state = "failed";
    outgoing.failure = reason;
    this.#report(outgoing);
    this.events.announce();
  }

  #closeEncoders(outgoing: Outgoing): void {
    outgoing.audio?.close();
    outgoing.video?.close();
    outgoing.audio = undefined;
    outgoing.video = undefined;
  }

  #report({ spec, state, codec, failure, video }: Outgoing): void {
    this.events.toPage({ type: "publication", publication: spec.publication, state, codec, failure, limitReason: video?.limitReason });
  }
}

function isOn(state: TrackSwitch): boolean {
  return state === "on";
}

function close(media: CapturedMedia | VideoFrame | AudioData): void {
  if (media instanceof VideoFrame || !("samples" in media || "frame" in media)) media.close();
  else if ("frame" in media) media.frame.close();
}

function mono(data: AudioData): Float32Array {
  const mix = new Float32Array(data.numberOfFrames);
  data.copyTo(mix, { planeIndex: 0, format: "f32-planar" });
  if (data.numberOfChannels > 1) {
    const other = new Float32Array(data.numberOfFrames);
    data.copyTo(other, { planeIndex: 1, format: "f32-planar" });
    for (let i = 0; i < mix.length; i++) mix[i] = ((mix[i] ?? 0) + (other[i] ?? 0)) / 2;
  }
  return mix;
}
