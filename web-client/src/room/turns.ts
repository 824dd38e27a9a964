/**
 * Does pieces of work one after another and gives the page's thread back as soon as they have taken a while: what twenty tracks need at once
 * must not hold up a click. Not by timers, which browsers slow down in hidden pages.
 */
export class Turns {
  /** Work goes on in the next task after so long, ms. */
  static readonly BUDGET_MS = 6;

  readonly #work: (() => void)[] = [];
  /** What can wait. */
  #held: (() => void)[] | undefined;
  readonly #channel = new MessageChannel();
  #closed = false;

  constructor() {
    this.#channel.port1.onmessage = () => this.#run();
  }

  /** Takes a piece of work; it is done in a later task. */
  add(work: () => void): void {
    if (this.#closed) return;
    this.#work.push(work);
    if (this.#work.length === 1) this.#channel.port2.postMessage(undefined);
  }

  /** Keeps what is added by {@link addLater} until {@link release}: at this moment something else is more important. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held;
    this.#held = undefined;
    for (const work of held ?? []) this.add(work);
  }

  /** Takes a piece of work that can wait. */
  addLater(work: () => void): void {
    if (this.#held) this.#held.push(work);
    else this.add(work);
  }

  /** Forgets what was not done yet. */
  close(): void {
    this.#closed = true;
    this.#held = undefined;
    this.#work.length = 0;
    this.#channel.port1.close();
    this.#channel.port2.close();
  }

  #run(): void {
    const end = performance.now() + Turns.BUDGET_MS;
    try {
      for (let work = this.#work[0]; work; work = this.#work[0]) {
        // It stays in the list while it runs, so that what it adds asks for no second run.
        try {
          work();
        } finally {
          this.#work.shift();
        }
        if (performance.now() >= end) break;
      }
    } finally {
      if (this.#work.length > 0) this.#channel.port2.postMessage(undefined);
    }
  }
}
