import type { TrackSource } from "../types.js";

export interface EncodeSize {
  width: number;
  height: number;
  fps: number;
}

/** Sizes by rate: pixels per picture and pictures per second that a bit rate can carry without ugly blocks. */
const RUNGS: readonly { minBitrate: number; pixels: number; fps: number }[] = [
  { minBitrate: 1_600_000, pixels: 1920 * 1080, fps: 30 },
  { minBitrate: 700_000, pixels: 1280 * 720, fps: 30 },
  { minBitrate: 400_000, pixels: 854 * 480, fps: 30 },
  { minBitrate: 300_000, pixels: 640 * 360, fps: 30 },
  { minBitrate: 150_000, pixels: 480 * 270, fps: 30 },
  { minBitrate: 0, pixels: 320 * 180, fps: 15 },
];

/** Chooses the size of the picture to encode; goes down at once and up with hesitation, so that it does not flap. */
export class SizeLadder {
  /** A keyframe over this size, bytes, costs a step: it would hold up the connection however low the bit rate is set. */
  static readonly KEYFRAME_BYTES = 150_000;
  /** How long a step taken down for a large keyframe or a slow encoder lasts, ms. */
  static readonly PENALTY_MS = 60_000;
  /** Going up takes this much more than the rung's own rate. */
  static readonly UP_FACTOR = 1.25;
  /** And it has to last this long, ms: every change of size costs a keyframe. */
  static readonly UP_WAIT_MS = 4000;

  #rung: number | undefined;
  /** Since when the rate would allow a larger picture. */
  #upSince: number | undefined;
  #floor = 0;
  #penaltyUntil = 0;
  #reason: "frame_too_large" | "cpu" | undefined;

  constructor(readonly source: TrackSource) {}

  /** Why the picture is smaller than the rate would allow. */
  get reason(): "frame_too_large" | "cpu" | undefined {
    return this.#reason;
  }

  /** The last keyframe was this large. @returns whether the size is lowered because of it */
  onKeyframe(bytes: number, now: number): boolean {
    if (bytes <= SizeLadder.KEYFRAME_BYTES) return false;
    this.#penalize("frame_too_large", now);
    return true;
  }

  /** The encoder does not keep up. */
  onSlowEncoder(now: number): void {
    this.#penalize("cpu", now);
  }

  /** The size for a picture of this size at this rate, bit/s. `maxSide`: the viewers need no more of the shorter side, px; screens do not care. */
  choose(width: number, height: number, fps: number, bitrate: number, now: number, maxSide = Infinity): EncodeSize {
    if (this.#reason && now > this.#penaltyUntil) {
      this.#floor = Math.max(0, this.#floor - 1);
      this.#penaltyUntil = now + SizeLadder.PENALTY_MS / 4;
      if (this.#floor === 0) this.#reason = undefined;
    }
    const affordable = Math.max(0, RUNGS.findIndex((candidate) => bitrate >= candidate.minBitrate));
    let rung = affordable;
    if (this.#rung !== undefined && rung < this.#rung) {
      const hesitant = RUNGS.findIndex((candidate) => bitrate >= candidate.minBitrate * SizeLadder.UP_FACTOR);
      const up = Math.min(this.#rung, hesitant < 0 ? RUNGS.length - 1 : hesitant);
      if (up < this.#rung) this.#upSince ??= now;
      else this.#upSince = undefined;
      rung = this.#upSince !== undefined && now - this.#upSince >= SizeLadder.UP_WAIT_MS ? up : this.#rung;
    } else {
      this.#upSince = undefined;
    }
    rung = Math.max(rung, this.#floor);
    this.#rung = rung;
    const limits = RUNGS[rung] ?? { pixels: 320 * 180, fps: 15 };
    // More pictures of the same size cost no keyframe: they need not wait.
    const motion = RUNGS[Math.min(rung, Math.max(affordable, this.#floor))] ?? limits;
    // Screens keep their sharpness and give up motion instead.
    const pixels = this.source === "screen" ? Math.max(limits.pixels, this.#floor === 0 ? 1920 * 1080 : 640 * 360) : limits.pixels;
    const side = this.source === "screen" ? Infinity : 2 * Math.floor(maxSide / 2);
    const scale = Math.min(1, Math.sqrt(pixels / (width * height)), side / Math.min(width, height));
    const even = (value: number): number => Math.max(2, 2 * Math.round((value * scale) / 2));
    return { width: even(width), height: even(height), fps: Math.min(fps, motion.fps) };
  }

  #penalize(reason: "frame_too_large" | "cpu", now: number): void {
    const current = this.#rung ?? 0;
    this.#floor = Math.min(RUNGS.length - 1, current + 1);
    this.#reason = reason;
    this.#penaltyUntil = now + SizeLadder.PENALTY_MS;
  }
}
