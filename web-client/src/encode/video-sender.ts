import { SequenceHeaders } from "../media/av1.js";
import { OffsetClock } from "../media/clock.js";
import { Fragmenter } from "../media/fragments.js";
import { ParameterSets } from "../media/h264.js";
import { CODEC_AV1, CODEC_H264 } from "../media/header.js";
import { bitrateOfSide } from "../media/picture-size.js";
import { RateMeter } from "../media/rate.js";
import type { SendWindow } from "../media/acknowledge.js";
import type { TrackSource } from "../types.js";
import { SizeLadder, type EncodeSize } from "./ladder.js";
import { encoderConfig, type VideoCodec } from "./probe.js";
import { RateControl } from "./rate-control.js";
import type { Uplink } from "./uplink.js";
import { Upright } from "./upright.js";

export interface VideoSenderOptions {
  slot: number;
  source: TrackSource;
  codec: VideoCodec;
  maxBitrate: number;
  fps: number;
  uplink: Uplink;
  window: () => SendWindow;
  now: () => number;
  /** The encoder gave a picture, which is sent next. */
  onOutput: () => void;
  /** The encoder failed again and again; nothing more comes of this sender. */
  onFailure: (reason: string) => void;
  /** Size or limit changed. */
  onChange: () => void;
}

/** Encodes one video track and hands it to the uplink. */
export class VideoSender {
  static readonly KEYFRAME_MS = 4000;
  /** The same below SLOW_BITRATE, bit/s, where a keyframe holds up everything for a good part of a second; who needs one asks for it. */
  static readonly SLOW_KEYFRAME_MS = 10_000;
  static readonly SLOW_BITRATE = 300_000;
  /** Pictures inside the encoder at one time; more are left out. */
  static readonly MAX_QUEUE = 2;
  /** Share of pictures left out for the encoder's sake in two seconds that makes it "slow". */
  static readonly SLOW_SHARE = 0.35;

  keyframes = 0;
  skipped = 0;
  width = 0;
  height = 0;
  readonly #options: VideoSenderOptions;
  readonly #rate: RateControl;
  readonly #ladder: SizeLadder;
  readonly #fragmenter: Fragmenter;
  readonly #clock = new OffsetClock();
  readonly #meter = new RateMeter();
  readonly #upright = new Upright();
  readonly #parameterSets = new ParameterSets();
  readonly #sequenceHeaders = new SequenceHeaders();
  /** Capture time by frame timestamp, for what is inside the encoder. */
  readonly #inside = new Map<number, number>();
  #encoder: VideoEncoder | undefined;
  #configured: (EncodeSize & { bitrate: number }) | undefined;
  #configuredAt = 0;
  #wantKeyframe = true;
  #keyframeInside = false;
  #lastKeyframe = -Infinity;
  #lastFrame = -Infinity;
  #lastTimestamp = -1;
  #offered = 0;
  #tooSlow = 0;
  #slowSince = 0;
  #errors = 0;
  #serverReason: string | undefined;
  #maxSide: number | undefined;
  #closed = false;

  constructor(options: VideoSenderOptions) {
    this.#options = options;
    this.#rate = new RateControl(options.maxBitrate);
    this.#ladder = new SizeLadder(options.source);
    this.#fragmenter = new Fragmenter("video", options.slot);
  }

  /** Why less is sent than asked for. */
  get limitReason(): string | undefined {
    return this.#ladder.reason ?? (this.#rate.limitedByConnection ? "bandwidth" : this.#serverReason);
  }

  bitrate(now: number): number {
    return this.#meter.bitrate(now);
  }

  fps(now: number): number {
    return this.#meter.count(now);
  }

  requestKeyframe(): void {
    // One that is being encoded is newer than the request.
    if (!this.#keyframeInside) this.#wantKeyframe = true;
  }

  /** Obeys the server's `limit`; `maxSide` is for cameras. */
  setLimit(bitrate: number, reason: string, maxSide: number | undefined): void {
    this.#maxSide = this.#options.source === "screen" ? undefined : maxSide;
    const enough = bitrateOfSide(this.#maxSide);
    this.#rate.setLimit(bitrate, enough);
    this.#serverReason = Math.min(bitrate, enough) < this.#options.maxBitrate ? reason : undefined;
    if (reason === "frame_too_large") this.#ladder.onKeyframe(Infinity, this.#options.now());
    this.#options.onChange();
  }

  /** Takes a captured picture; it is closed here. */
  push(input: VideoFrame): void {
    let frame = input;
    try {
      if (this.#closed || !this.#shouldEncode(frame)) return;
      frame = this.#upright.apply(frame);
      this.#encode(frame);
    } catch (error) {
      this.#fail(error);
    } finally {
      frame.close();
    }
  }

  close(): void {
    this.#closed = true;
    this.#dropEncoder();
  }

  #shouldEncode(frame: VideoFrame): boolean {
    const now = this.#options.now();
    this.#rate.update(this.#options.window(), now);
    // Slightly early pictures of a steady source must not be left out, hence 0.8.
    const fps = this.#configured?.fps ?? this.#options.fps;
    if (frame.timestamp <= this.#lastTimestamp || now - this.#lastFrame < (0.8 * 1000) / fps) return false;
    if (!this.#options.uplink.isVideoOpen) {
      // Nothing that was encoded is lost, so the next picture may be a delta.
      this.skipped++;
      return false;
    }
    this.#offered++;
    if ((this.#encoder?.encodeQueueSize ?? 0) >= VideoSender.MAX_QUEUE || this.#inside.size > VideoSender.MAX_QUEUE + 1) {
      this.skipped++;
      this.#tooSlow++;
      this.#watchSpeed(now);
      return false;
    }
    this.#watchSpeed(now);
    return true;
  }

  #watchSpeed(now: number): void {
    if (now - this.#slowSince < 2000) return;
    if (this.#offered >= 20 && this.#tooSlow / this.#offered > VideoSender.SLOW_SHARE) this.#ladder.onSlowEncoder(now);
    this.#offered = 0;
    this.#tooSlow = 0;
    this.#slowSince = now;
  }

  #encode(frame: VideoFrame): void {
    const now = this.#options.now();
    this.#configure(frame, now);
    const interval = this.#rate.allowed < VideoSender.SLOW_BITRATE ? VideoSender.SLOW_KEYFRAME_MS : VideoSender.KEYFRAME_MS;
    const keyFrame = this.#wantKeyframe || now - this.#lastKeyframe > interval;
    const captured = this.#clock.map(frame.timestamp / 1000, now);
    this.#inside.set(frame.timestamp, captured);
    this.#encoder?.encode(frame, { keyFrame });
    this.#lastFrame = now;
    this.#lastTimestamp = frame.timestamp;
    if (keyFrame) {
      this.#wantKeyframe = false;
      this.#keyframeInside = true;
      this.#lastKeyframe = now;
    }
  }

  #configure(frame: VideoFrame, now: number): void {
    const bitrate = this.#rate.bitrate;
    const { displayWidth, displayHeight } = frame;
    const size = this.#ladder.choose(displayWidth, displayHeight, this.#options.fps, this.#rate.allowed, now, this.#maxSide);
    const current = this.#configured;
    const sameSize = current?.width === size.width && current.height === size.height;
    const sameRate = current !== undefined && Math.abs(bitrate - current.bitrate) < 0.1 * current.bitrate;
    // Reconfiguring is not free, and some encoders make a keyframe of it.
    if (this.#encoder && sameSize && current.fps === size.fps && (sameRate || now - this.#configuredAt < 1000)) return;
    if (!this.#encoder || this.#encoder.state === "closed") {
      this.#inside.clear();
      this.#encoder = new VideoEncoder({ output: (chunk) => this.#output(chunk), error: (error) => this.#fail(error) });
      this.#wantKeyframe = true;
    }
    this.#encoder.configure(encoderConfig(this.#options.codec, size.width, size.height, size.fps, bitrate));
    this.#configured = { ...size, bitrate };
    this.#configuredAt = now;
    if (!sameSize) {
      this.#wantKeyframe = true;
      this.width = size.width;
      this.height = size.height;
      this.#options.onChange();
    }
  }

  #output(chunk: EncodedVideoChunk): void {
    const now = this.#options.now();
    const captured = this.#inside.get(chunk.timestamp) ?? now;
    this.#inside.delete(chunk.timestamp);
    const raw = new Uint8Array(chunk.byteLength);
    chunk.copyTo(raw);
    const keyframe = chunk.type === "key";
    const h264 = this.#options.codec === "h264";
    const payload = h264 ? this.#parameterSets.complete(raw, keyframe) : this.#sequenceHeaders.complete(raw, keyframe);
    if (!payload) {
      this.#wantKeyframe = true;
      return;
    }
    this.#errors = 0;
    this.#options.onOutput();
    if (keyframe) {
      this.#keyframeInside = false;
      this.keyframes++;
      this.#lastKeyframe = now;
      if (this.#ladder.onKeyframe(payload.length, now)) this.#options.onChange();
    }
    const messages = this.#fragmenter.cut(payload, captured, h264 ? CODEC_H264 : CODEC_AV1, keyframe);
    if (this.#options.uplink.sendVideo(this.#options.slot, messages, keyframe)) this.#meter.add(now, payload.length);
    else this.skipped++;
  }

  #fail(error: unknown): void {
    this.#dropEncoder();
    // One failure may be the device being taken away for a moment; three in a row are not.
    if (++this.#errors >= 3 && !this.#closed) {
      this.#closed = true;
      this.#options.onFailure(`The video encoder failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #dropEncoder(): void {
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = undefined;
    this.#configured = undefined;
    this.#keyframeInside = false;
    this.#inside.clear();
  }
}
