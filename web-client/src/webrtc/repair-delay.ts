/**
 * How long received media is held back so that lost packets can come again in time. Without loss the browser's own, smallest delay is
 * best; with it, a packet that is repaired needs a round trip, and one whose repair is lost too needs two.
 */
export class RepairDelay {
  /** Loss above this share of packets within a second is worth a delay. */
  static readonly LOSS = 0.005;
  /** The delay stays this long after the last such second, so that it does not come and go. */
  static readonly HOLD_MS = 15_000;
  static readonly MOST_MS = 400;

  #packets = 0;
  #lost = 0;
  #until = 0;
  #target: number | null = null;

  /**
   * Takes cumulative counts of received and lost packets, about once a second.
   * @returns the delay to ask for in ms, `null` for the browser's own
   */
  next(packets: number, lost: number, rttMs: number, now: number): number | null {
    const [newPackets, newLost] = [packets - this.#packets, lost - this.#lost];
    [this.#packets, this.#lost] = [packets, lost];
    if (newPackets > 0 && newLost / (newPackets + newLost) > RepairDelay.LOSS) this.#until = now + RepairDelay.HOLD_MS;
    if (now >= this.#until) this.#target = null;
    else {
      const wanted = Math.min(RepairDelay.MOST_MS, Math.round(2 * rttMs + 60));
      // Small changes of the round trip are not worth stretching the sound for.
      if (this.#target === null || Math.abs(wanted - this.#target) > 40) this.#target = wanted;
    }
    return this.#target;
  }
}
