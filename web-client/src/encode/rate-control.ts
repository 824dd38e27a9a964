import type { SendWindow } from "../media/acknowledge.js";

/**
 * How much video may be sent: additive increase while acknowledgements come promptly, multiplicative decrease when they are late.
 * All rates in bit/s.
 */
export class RateControl {
  static readonly MIN = 100_000;
  /** Acknowledgements that are later than the base delay by more than this mean a queue, ms. */
  static readonly LATE_MS = 120;
  static readonly DECREASE = 0.75;
  static readonly DECREASE_PAUSE_MS = 600;
  /** Share of the maximum by which the rate grows per second. */
  static readonly GROWTH_PER_S = 0.06;

  #target: number;
  #limit = Infinity;
  #enough = Infinity;
  #lastDecrease = -Infinity;
  #lastUpdate = 0;

  constructor(readonly max: number) {
    this.#target = max;
  }

  /** What to send now. */
  get bitrate(): number {
    return Math.min(this.allowed, this.#enough);
  }

  /** What might be sent if the picture needed it. */
  get allowed(): number {
    return Math.round(Math.max(RateControl.MIN, Math.min(this.#target, this.#limit, this.max)));
  }

  /** Whether the connection, not the maximum or a `limit`, is what holds the rate down. */
  get limitedByConnection(): boolean {
    return this.#target < 0.9 * Math.min(this.#limit, this.max, this.#enough);
  }

  /** Obeys the server's `limit`. `enough`: a picture of the size that it allows needs no more. */
  setLimit(bitrate: number, enough = Infinity): void {
    this.#limit = bitrate;
    this.#enough = enough;
  }

  /** Looks at the connection; call it often (at acknowledgements, and before frames). */
  update(window: SendWindow, now: number): void {
    const elapsed = Math.min(1000, Math.max(0, now - this.#lastUpdate));
    this.#lastUpdate = now;
    const base = window.baseDelay(now);
    const queueing = Math.max(window.lastDelay, window.oldestAge(now)) - base;
    if (queueing > RateControl.LATE_MS) {
      if (now - this.#lastDecrease < RateControl.DECREASE_PAUSE_MS) return;
      this.#lastDecrease = now;
      this.#target = Math.max(RateControl.MIN, this.bitrate * RateControl.DECREASE);
    } else if (queueing < RateControl.LATE_MS / 2) {
      this.#target = Math.min(this.max, this.#target + (this.max * RateControl.GROWTH_PER_S * elapsed) / 1000);
    }
  }
}
