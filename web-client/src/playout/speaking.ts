/** Decides from levels whether somebody talks: quickly on, slowly off, and only clearly above the background. */
export class SpeakingDetector {
  static readonly ON_RMS = 0.015;
  static readonly HOLD_MS = 600;
  #background = 0.004;
  #until = 0;

  /** Takes a level (linear RMS over about 100 ms) and says whether there is talking at this time, ms. */
  update(level: number, now: number): boolean {
    // The background follows quiet moments at once and rises only slowly, so that a long sentence does not become background.
    this.#background = level < this.#background ? level : Math.min(0.05, this.#background * 1.005 + 1e-6);
    if (level > Math.max(SpeakingDetector.ON_RMS, this.#background * 2.5)) this.#until = now + SpeakingDetector.HOLD_MS;
    return now < this.#until;
  }
}
