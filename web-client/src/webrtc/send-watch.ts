/** Notices a sender out of which nothing comes though its track gives it something to send: WebRTC has no event for an encoder that fails. */
export class SendWatch {
  /** So long nothing may come, ms. Starting an encoder on a busy machine takes seconds. */
  static readonly PATIENCE_MS = 6000;
  /** So many pictures (or packets' worth of sound) must have gone in meanwhile. A still screen gives few, and none is missing. */
  static readonly INPUT = 10;

  #out = 0;
  #input = 0;
  #since: number | undefined;
  #gave = false;

  /** Another track is sent from now on. */
  restart(): void {
    this.#since = undefined;
    this.#gave = false;
  }

  /**
   * Takes the counts of what came out of the encoder and of what the track gave, and whether anything is to be sent at all.
   * @param now ms
   * @returns whether the sender fails
   */
  update(out: number, input: number, expected: boolean, now: number): boolean {
    const moves = this.#since !== undefined && out > this.#out;
    if (!expected || this.#since === undefined || moves) {
      this.#gave ||= moves;
      this.#out = out;
      this.#input = input;
      this.#since = now;
      return false;
    }
    // A new track owes at least one picture, however still it is.
    return now - this.#since >= SendWatch.PATIENCE_MS && (!this.#gave || input - this.#input >= SendWatch.INPUT);
  }
}
