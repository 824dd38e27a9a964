/**
 * How long received media is held back so that lost packets can come again in time. Without loss the browser's own, smallest delay is
 * best; with it, a packet that is repaired needs a round trip, and one whose repair is lost too needs two.
 */
export class RepairDelay {
  /** Loss above this share of packets between two looks is worth a delay. */
  static readonly LOSS = 0.005;
  /** The delay stays this long after the last such look, so that it does not come and go. */
  static readonly HOLD_MS = 15_000;
  static readonly MOST_MS = 400;
  /** On the way to a longer delay: by so much, so often. A picture that is held back by 200 ms at once stands still for that time. */
  static readonly STEP_MS = 20;
  static readonly STEP_EVERY_MS = 50;
  /** About what browsers hold media back by themselves. */
  static readonly OWN_MS = 60;

  #packets = 0;
  #lost = 0;
  #until = 0;
  #target: number | null = null;

  /**
   * Takes cumulative counts of received and lost packets, about twice a second.
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

  /** What to ask for next on the way from `held` to `target`. A shorter delay may come at once: pictures then only come faster. */
  static toward(target: number | null, held: number | null): number | null {
    return target === null ? null : Math.min(target, (held ?? RepairDelay.OWN_MS) + RepairDelay.STEP_MS);
  }
}
