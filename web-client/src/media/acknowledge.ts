/** Counts received binary messages and says when to acknowledge them (section 4). Timers belong to the caller: see {@link Acknowledger.dueAt}. */
export class Acknowledger {
  /** At the latest this long after a message, ms. */
  static readonly MAX_DELAY_MS = 50;
  /** At the latest after so many messages. */
  static readonly MAX_MESSAGES = 16;
  /** Never more often than this, ms. */
  static readonly MIN_INTERVAL_MS = 10;

  #received = 0;
  #acknowledged = 0;
  #oldestUnacknowledged = 0;
  #atOnce = false;
  #lastSent = Number.NEGATIVE_INFINITY;

  /** Binary messages received on this connection. */
  get received(): number {
    return this.#received;
  }

  /** `atOnce`: the sender learns from this one how fast the path is (the last message of a picture). */
  onMessage(now: number, atOnce = false): void {
    if (this.#received === this.#acknowledged) this.#oldestUnacknowledged = now;
    this.#received++;
    this.#atOnce ||= atOnce;
  }

  /** When the next acknowledgement should be sent, or `undefined` if there is nothing to acknowledge. */
  dueAt(): number | undefined {
    const waiting = this.#received - this.#acknowledged;
    if (waiting === 0) return undefined;
    const wanted = this.#atOnce || waiting >= Acknowledger.MAX_MESSAGES ? this.#oldestUnacknowledged : this.#oldestUnacknowledged + Acknowledger.MAX_DELAY_MS;
    return Math.max(wanted, this.#lastSent + Acknowledger.MIN_INTERVAL_MS);
  }

  /** The count to send if an acknowledgement is due now; it counts as sent. */
  take(now: number): number | undefined {
    const due = this.dueAt();
    if (due === undefined || due > now) return undefined;
    this.#acknowledged = this.#received;
    this.#atOnce = false;
    this.#lastSent = now;
    return this.#received;
  }
}

/** What the other side has and has not acknowledged, and what may therefore still be sent (section 4). */
export class SendWindow {
  /** How old the oldest unacknowledged message may become before video stops, beyond the base delay, ms. */
  static readonly VIDEO_LIMIT_MS = 200;
  /** The same for audio, beyond the limit of video, ms. */
  static readonly AUDIO_EXTRA_MS = 1000;
  static readonly BASE_DELAY_MAX_MS = 500;
  static readonly BASE_DELAY_MEMORY_MS = 30_000;

  #sent = 0;
  #acknowledged = 0;
  /** Send time and bytes of each unacknowledged message, oldest first, from `#head` on. */
  #times: number[] = [];
  #bytes: number[] = [];
  #head = 0;
  #bytesInFlight = 0;
  /** Candidates for the smallest acknowledgement delay, increasing in time and in delay. */
  #minima: { at: number; delay: number }[] = [];
  #lastDelay = 0;

  onSent(now: number, bytes: number): void {
    this.#sent++;
    this.#times.push(now);
    this.#bytes.push(bytes);
    this.#bytesInFlight += bytes;
  }

  /** @returns false for an impossible acknowledgement: of more than was sent. One that goes backwards is ignored. */
  onAck(count: number, now: number): boolean {
    if (count > this.#sent) return false;
    if (count <= this.#acknowledged) return true;
    let sentAt = now;
    while (this.#acknowledged < count) {
      sentAt = this.#times[this.#head] ?? now;
      this.#bytesInFlight -= this.#bytes[this.#head] ?? 0;
      this.#head++;
      this.#acknowledged++;
    }
    if (this.#head > 512) {
      this.#times.splice(0, this.#head);
      this.#bytes.splice(0, this.#head);
      this.#head = 0;
    }
    this.#addDelay(now - sentAt, now);
    return true;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** Delay of the newest acknowledgement, ms. */
  get lastDelay(): number {
    return this.#lastDelay;
  }

  /** Smallest acknowledgement delay of the last 30 s, at most 500 ms. */
  baseDelay(now: number): number {
    this.#expire(now);
    return Math.min(this.#minima[0]?.delay ?? 0, SendWindow.BASE_DELAY_MAX_MS);
  }

  /** Age of the oldest unacknowledged message, ms; 0 if all are acknowledged. */
  oldestAge(now: number): number {
    const oldest = this.#times[this.#head];
    return oldest === undefined ? 0 : now - oldest;
  }

  /** Whether video has to be left out now. */
  videoBlocked(now: number): boolean {
    return this.oldestAge(now) > SendWindow.VIDEO_LIMIT_MS + this.baseDelay(now);
  }

  /** Whether audio has to wait now. */
  audioBlocked(now: number): boolean {
    return this.oldestAge(now) > SendWindow.VIDEO_LIMIT_MS + SendWindow.AUDIO_EXTRA_MS + this.baseDelay(now);
  }

  #addDelay(delay: number, now: number): void {
    this.#lastDelay = delay;
    let last = this.#minima.at(-1);
    while (last && last.delay >= delay) {
      this.#minima.pop();
      last = this.#minima.at(-1);
    }
    this.#minima.push({ at: now, delay });
    this.#expire(now);
  }

  #expire(now: number): void {
    while (this.#minima.length > 1 && (this.#minima[0]?.at ?? now) < now - SendWindow.BASE_DELAY_MEMORY_MS) this.#minima.shift();
  }
}
