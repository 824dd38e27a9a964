/**
 * When to try again after a lost connection: the first time within 250 ms, so that a short hiccup is hardly noticed, then after
 * 0.5, 1, 2, 4, 4 … s. All ±50 % (the first: 0–250 ms), so that a whole room does not come back in the same instant.
 */
export class Backoff {
  static readonly FIRST_MS = 250;
  static readonly STEPS_MS = [500, 1000, 2000, 4000];
  #attempt = 0;

  constructor(readonly random: () => number = Math.random) {}

  /** Attempts since the last reset. */
  get attempts(): number {
    return this.#attempt;
  }

  /** How long to wait before the next attempt, ms. */
  next(): number {
    const attempt = this.#attempt++;
    if (attempt === 0) return this.random() * Backoff.FIRST_MS;
    const step = Backoff.STEPS_MS[Math.min(attempt, Backoff.STEPS_MS.length) - 1] ?? 4000;
    return step * (0.5 + this.random());
  }

  reset(): void {
    this.#attempt = 0;
  }
}
