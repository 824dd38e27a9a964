/** Bytes and frames over the last second, for statistics. */
export class RateMeter {
  #entries: { at: number; bytes: number }[] = [];
  #bytes = 0;

  add(now: number, bytes: number): void {
    this.#entries.push({ at: now, bytes });
    this.#bytes += bytes;
    this.#expire(now);
  }

  /** bit/s over the last second. */
  bitrate(now: number): number {
    this.#expire(now);
    return this.#bytes * 8;
  }

  /** Entries in the last second. */
  count(now: number): number {
    this.#expire(now);
    return this.#entries.length;
  }

  #expire(now: number): void {
    let gone = 0;
    for (const entry of this.#entries) {
      if (entry.at > now - 1000) break;
      this.#bytes -= entry.bytes;
      gone++;
    }
    if (gone > 0) this.#entries.splice(0, gone);
  }
}
