import { bestLag, MAX_LAG, Ring, SEARCH_WINDOW } from "./pitch.js";

/** The rate of everything in the buffer, Hz. */
export const RATE = 48_000;
const PER_MS = RATE / 1000;
/** Where sound begins, or goes on at another place, it does so within this: 5 ms. */
const FADE = 240;
/** 1.37 s; what waits is kept far below it. */
const CAPACITY = 65_536;
/** What a lag search may read beyond its start. */
const SEARCH_SPAN = 2 * MAX_LAG + SEARCH_WINDOW;

/** Figures of one buffer, counted since it was made. */
export interface PlayoutCounters {
  /** Time filled with invented sound or silence because the real one was missing, ms. */
  concealedMs: number;
  /** How often that began. */
  concealments: number;
  /** Sound thrown away to get rid of delay, ms. */
  skippedMs: number;
}

/**
 * One source's sound between decoder and loudspeaker. It keeps just enough waiting to bridge the jitter that it sees, hides gaps, and removes or
 * adds whole pitch periods (never changes pitch) to hold its level. Stereo inside; positions count samples at 48 kHz.
 */
export class JitterBuffer {
  /** Slack that must be left at the worst moment, ms: starting value and bounds. Total delay is about this plus one packet. */
  static readonly SLACK_START_MS = 25;
  static readonly SLACK_MIN_MS = 10;
  static readonly SLACK_MAX_MS = 120;
  /** After each underrun the slack grows by its length, within these bounds; it shrinks again by SLACK_DECAY_MS_PER_S. */
  static readonly SLACK_STEP_MS = 15;
  static readonly SLACK_STEP_MAX_MS = 60;
  static readonly SLACK_DECAY_MS_PER_S = 0.5;
  /** Quarters of a second over which the worst moment is looked for: a path that is full stalls once in a second or two. */
  static readonly FLOOR_QUARTERS = 8;
  /**
   * At a join everything is to be done at once, which says little of the path: underruns in the first second since it first played count with
   * the least step, and for some time only the last half to three quarters of a second are looked at, ms.
   */
  static readonly SETTLED_AFTER_MS = 1000;
  static readonly HASTY_MS = 3000;
  static readonly HASTY_QUARTERS = 2;
  /** In that first second, what was left over for so long by so much is left out at once, ms; but if it was missing then, not again. */
  static readonly LEFT_OVER_FOR_MS = 100;
  static readonly LEFT_OVER_MS = 60;
  /** Start playing at the latest this long after the first packet, ms. */
  static readonly START_WAIT_MS = 60;
  /** More than this is never kept waiting, ms. */
  static readonly HARD_LIMIT_MS = 400;
  /** Gaps in the timestamps up to this are filled with concealment; longer ones are pauses of the speaker, ms. */
  static readonly FILL_MAX_MS = 100;
  static readonly FADE_MS = 60;

  readonly counters: PlayoutCounters = { concealedMs: 0, concealments: 0, skippedMs: 0 };
  readonly #left = new Ring(CAPACITY);
  readonly #right = new Ring(CAPACITY);
  #read = 0;
  /** Fraction of a sample beyond `#read`, when the context's rate is not 48 kHz. */
  #fraction = 0;
  #write = 0;
  /** Timestamp just after the last sample written, ms. */
  #endTimestamp: number | undefined;
  #state: "empty" | "filling" | "playing" | "concealing" = "empty";
  #fillingMs = 0;
  /** Length of the last packet, and how long ago it came, ms. */
  #packetMs = 0;
  #sincePacketMs = 0;
  #slackMs = JitterBuffer.SLACK_START_MS;
  /** Lowest level of each of the last quarters of a second, and of the current one, ms. */
  #floors: number[] = [];
  #floor = Infinity;
  #floorAgeMs = 0;
  #sinceAdjustMs = 0;
  /** Since it first played. */
  #ageMs = 0;
  #concealStart = 0;
  #concealLag = 0;
  #concealed = 0;
  #fadeIn = 0;

  /** What waits, ms. */
  get levelMs(): number {
    return (this.#write - this.#read) / PER_MS;
  }

  /** Slack aimed at, ms. */
  get slackMs(): number {
    return this.#slackMs;
  }

  get isPlaying(): boolean {
    return this.#state === "playing";
  }

  /** Media timestamp of what is played now, ms; `undefined` while nothing of it is. */
  get playingTimestamp(): number | undefined {
    return this.#state === "playing" && this.#endTimestamp !== undefined ? this.#endTimestamp - this.levelMs : undefined;
  }

  /**
   * Takes decoded sound. Timestamps (ms, unwrapped) of contiguous packets are contiguous up to a few ms of rounding and slewing.
   * @param right the second channel; the first is used for both without it
   */
  push(left: Float32Array, right: Float32Array | undefined, timestamp: number): void {
    const durationMs = left.length / PER_MS;
    if (this.#endTimestamp !== undefined) {
      const gap = timestamp - this.#endTimestamp;
      if (gap < -durationMs - JitterBuffer.HARD_LIMIT_MS || gap > 10_000) this.#endTimestamp = undefined;
      else if (gap <= -durationMs + 2) return;
      else if (gap > durationMs / 2 && gap <= JitterBuffer.FILL_MAX_MS && this.#state === "playing") this.#fill(Math.round(gap * PER_MS));
    }
    for (let i = 0; i < left.length; i++) {
      const sample = left[i] ?? 0;
      this.#left.set(this.#write, sample);
      this.#right.set(this.#write, right ? (right[i] ?? 0) : sample);
      this.#write++;
    }
    this.#endTimestamp = timestamp + durationMs;
    this.#packetMs = durationMs;
    this.#sincePacketMs = 0;
    if (this.#state === "empty") {
      this.#state = "filling";
      this.#fillingMs = 0;
    }
    if (this.levelMs > JitterBuffer.HARD_LIMIT_MS) this.#skipTo(this.#slackMs + durationMs);
  }

  /**
   * Adds the next `length` samples to the outputs.
   * @param step samples at 48 kHz per output sample: 48,000 / rate of the context
   */
  mix(outLeft: Float32Array, outRight: Float32Array, played: Float32Array, length: number, step: number): void {
    const blockMs = (length * step) / PER_MS;
    this.#fillingMs += blockMs;
    this.#sincePacketMs += blockMs;
    if (this.#ageMs > 0 || this.#state === "playing") this.#ageMs += blockMs;
    if (this.#state === "filling" && (this.#leastMs() >= this.#slackMs || this.#fillingMs >= JitterBuffer.START_WAIT_MS)) {
      this.#state = "playing";
      this.#fadeIn = 0;
      this.#resetFloor();
    }
    if (this.#state === "playing") this.#adjust(blockMs);
    for (let i = 0; i < length; i++) {
      if (this.#state === "playing" && this.#write - this.#read < 2) this.#startConcealing();
      let l = 0;
      let r = 0;
      if (this.#state === "playing") {
        l = interpolate(this.#left, this.#read, this.#fraction);
        r = interpolate(this.#right, this.#read, this.#fraction);
        if (this.#fadeIn < FADE) {
          const gain = this.#fadeIn++ / FADE;
          l *= gain;
          r *= gain;
        }
        this.#fraction += step;
        const whole = Math.floor(this.#fraction);
        this.#read += whole;
        this.#fraction -= whole;
      } else if (this.#state === "concealing") {
        const gain = 1 - this.#concealed / (JitterBuffer.FADE_MS * PER_MS);
        if (gain > 0) {
          const position = this.#concealStart + (Math.floor(this.#concealed) % this.#concealLag);
          l = this.#left.at(position) * gain;
          r = this.#right.at(position) * gain;
        }
        this.#concealed += step;
      }
      outLeft[i] = (outLeft[i] ?? 0) + l;
      outRight[i] = (outRight[i] ?? 0) + r;
      played[i] = (l + r) / 2;
    }
    if (this.#state === "concealing") this.#whileConcealing(blockMs);
  }

  /** What is left when the next packet comes, if it comes in time. */
  #leastMs(): number {
    return this.levelMs - Math.max(0, this.#packetMs - this.#sincePacketMs);
  }

  /** Nothing left: repeat the last pitch period, fading. Whether it is an underrun or the end of a talk spurt shows when more comes. */
  #startConcealing(): void {
    this.#state = "concealing";
    this.#concealed = 0;
    if (this.counters.skippedMs > 0) this.#ageMs = Math.max(this.#ageMs, JitterBuffer.SETTLED_AFTER_MS);
    this.#concealLag = bestLag(this.#left, this.#read - MAX_LAG - SEARCH_WINDOW);
    this.#concealStart = this.#read - this.#concealLag;
    this.counters.concealments++;
  }

  #whileConcealing(blockMs: number): void {
    const ms = this.#concealed / PER_MS;
    if (this.levelMs >= 1) {
      // Late, not gone: there will be other packets as late as this one.
      const most = this.#ageMs < JitterBuffer.SETTLED_AFTER_MS ? JitterBuffer.SLACK_STEP_MS : JitterBuffer.SLACK_STEP_MAX_MS;
      this.#slackMs = Math.min(JitterBuffer.SLACK_MAX_MS, this.#slackMs + Math.min(Math.max(ms, JitterBuffer.SLACK_STEP_MS), most));
      this.counters.concealedMs += blockMs;
      this.#state = "filling";
      this.#fillingMs = JitterBuffer.START_WAIT_MS - 20;
    } else if (ms > 500) {
      // A pause, then: sound that nobody sent is not missing.
      this.counters.concealments--;
      this.counters.concealedMs = Math.max(0, this.counters.concealedMs - ms);
      this.#state = "empty";
    } else {
      this.counters.concealedMs += blockMs;
    }
  }

  /** Bridges lost packets in the middle with a fading repetition, so that time goes on. */
  #fill(samples: number): void {
    const lag = this.#write - this.#read > 0 ? bestLag(this.#left, this.#write - MAX_LAG - SEARCH_WINDOW) : MAX_LAG;
    const source = this.#write - lag;
    for (let i = 0; i < samples; i++) {
      const gain = Math.max(0, 1 - i / (JitterBuffer.FADE_MS * PER_MS));
      const position = source + (i % lag);
      this.#left.set(this.#write, this.#left.at(position) * gain);
      this.#right.set(this.#write, this.#right.at(position) * gain);
      this.#write++;
    }
    this.counters.concealments++;
    this.counters.concealedMs += samples / PER_MS;
  }

  #skipTo(levelMs: number): void {
    const [before, from] = [this.levelMs, this.#read];
    this.#read = this.#write - Math.round(levelMs * PER_MS);
    this.#fraction = 0;
    if (this.#state === "playing" && levelMs * PER_MS >= FADE) {
      // From what would have come into what comes instead.
      for (const ring of [this.#left, this.#right]) {
        for (let i = 0; i < FADE; i++) ring.set(this.#read + i, ring.at(from + i) * (1 - i / FADE) + ring.at(this.#read + i) * (i / FADE));
      }
    } else {
      this.#fadeIn = 0;
    }
    this.counters.skippedMs += before - levelMs;
    this.#resetFloor();
  }

  #resetFloor(): void {
    this.#floors = [];
    this.#floor = Infinity;
    this.#floorAgeMs = 0;
  }

  /** Watches the lowest level, and takes out or puts in one pitch period when it is off. */
  #adjust(blockMs: number): void {
    this.#slackMs = Math.max(JitterBuffer.SLACK_MIN_MS, this.#slackMs - (JitterBuffer.SLACK_DECAY_MS_PER_S * blockMs) / 1000);
    this.#floor = Math.min(this.#floor, this.levelMs);
    this.#floorAgeMs += blockMs;
    this.#sinceAdjustMs += blockMs;
    if (this.#ageMs < JitterBuffer.SETTLED_AFTER_MS && this.#floorAgeMs >= JitterBuffer.LEFT_OVER_FOR_MS) {
      const leftOver = this.#floor - this.#slackMs;
      if (leftOver > JitterBuffer.LEFT_OVER_MS) return this.#skipTo(this.levelMs - leftOver);
    }
    if (this.#floorAgeMs >= 250) {
      this.#floors.push(this.#floor);
      while (this.#floors.length > (this.#ageMs < JitterBuffer.HASTY_MS ? JitterBuffer.HASTY_QUARTERS : JitterBuffer.FLOOR_QUARTERS)) this.#floors.shift();
      this.#floor = Infinity;
      this.#floorAgeMs = 0;
    }
    const floor = Math.min(this.#floor, ...this.#floors);
    if (this.#floors.length === 0) return;
    const excess = floor - this.#slackMs;
    const pause = excess > 60 ? 40 : 250;
    if (this.#sinceAdjustMs < pause) return;
    if (excess > 20 && this.#write - this.#read > SEARCH_SPAN) this.#moveFloor(-this.#shorten());
    else if (excess < -10 && this.#write - this.#read > SEARCH_SPAN) this.#moveFloor(this.#lengthen());
  }

  #moveFloor(samples: number): void {
    this.#sinceAdjustMs = 0;
    this.#floors = this.#floors.map((floor) => floor + samples / PER_MS);
    this.#floor += samples / PER_MS;
  }

  /** Takes one period out of what comes next, by a cross-fade from it into the one after. */
  #shorten(): number {
    const lag = bestLag(this.#left, this.#read);
    for (const ring of [this.#left, this.#right]) {
      for (let i = 0; i < lag; i++) {
        const weight = i / lag;
        const at = this.#read + lag + i;
        ring.set(at, ring.at(this.#read + i) * (1 - weight) + ring.at(at) * weight);
      }
    }
    this.#read += lag;
    this.counters.skippedMs += lag / PER_MS;
    return lag;
  }

  /** Plays the next period twice, cross-fading from its end back into its beginning. */
  #lengthen(): number {
    const lag = bestLag(this.#left, this.#read);
    const read = this.#read;
    for (const ring of [this.#left, this.#right]) {
      for (let i = 0; i < lag; i++) ring.set(read - lag + i, ring.at(read + i));
      for (let i = 0; i < lag; i++) {
        const weight = i / lag;
        ring.set(read + i, ring.at(read + lag + i) * (1 - weight) + ring.at(read + i) * weight);
      }
    }
    this.#read -= lag;
    return lag;
  }
}

function interpolate(ring: Ring, position: number, fraction: number): number {
  const a = ring.at(position);
  return fraction === 0 ? a : a + (ring.at(position + 1) - a) * fraction;
}
