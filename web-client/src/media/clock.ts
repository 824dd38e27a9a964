/** A picture that arrives older than this by the room's clock is one of a replay, ms. */
export const REPLAY_AGE_MS = 300;

/**
 * Maps a source's timestamps to local time by the smallest offset between arrival and timestamp: delays only ever add, so the smallest
 * offset is the nearest to the truth. It follows drift by forgetting minima after a window, and moves slowly, so that time never jumps.
 */
export class OffsetClock {
  static readonly WINDOW_MS = 10_000;
  /** Largest correction, ms per second of local time. */
  static readonly SLEW_MS_PER_S = 5;
  /** An offset that is off by more than this is another clock, not drift: it is taken over at once. */
  static readonly RESTART_MS = 500;

  #minima: { at: number; offset: number }[] = [];
  #offset: number | undefined;
  #lastNow = 0;

  /** The current offset, ms; `undefined` before the first sample. */
  get offset(): number | undefined {
    return this.#offset;
  }

  /** Takes a timestamp that arrived now, and gives it in local time. Both in ms. */
  map(timestamp: number, now: number): number {
    const sample = now - timestamp;
    if (this.#offset === undefined || sample < this.#offset - OffsetClock.RESTART_MS || this.#stalled(sample, now)) {
      this.#offset = sample;
      this.#minima = [{ at: now, offset: sample }];
    } else {
      this.#add(sample, now);
      this.#slew(now);
    }
    this.#lastNow = now;
    return timestamp + this.#offset;
  }

  /** All samples of the last window are later than we believe by far: the source's clock stood still or started anew. */
  #stalled(sample: number, now: number): boolean {
    if (this.#offset === undefined || sample < this.#offset + OffsetClock.RESTART_MS) return false;
    const newest = this.#minima.at(-1);
    return newest !== undefined && now - newest.at > OffsetClock.RESTART_MS / 2;
  }

  #add(sample: number, now: number): void {
    let last = this.#minima.at(-1);
    while (last && last.offset >= sample) {
      this.#minima.pop();
      last = this.#minima.at(-1);
    }
    // Samples far above the offset are delays, or a new clock; #stalled tells them apart by when the last ordinary one came.
    if (this.#offset === undefined || sample < this.#offset + OffsetClock.RESTART_MS) this.#minima.push({ at: now, offset: sample });
    while (this.#minima.length > 1 && (this.#minima[0]?.at ?? now) < now - OffsetClock.WINDOW_MS) this.#minima.shift();
  }

  #slew(now: number): void {
    const target = this.#minima[0]?.offset;
    if (target === undefined || this.#offset === undefined) return;
    const step = (Math.max(0, now - this.#lastNow) * OffsetClock.SLEW_MS_PER_S) / 1000;
    this.#offset += Math.max(-step, Math.min(step, target - this.#offset));
  }
}

/** Makes a 32-bit ms timestamp continuous: adds the wraps. */
export class Unwrapper {
  #last: number | undefined;

  unwrap(timestamp: number): number {
    if (this.#last === undefined) return (this.#last = timestamp);
    const delta = (timestamp - this.#last) | 0;
    return (this.#last += delta);
  }
}
