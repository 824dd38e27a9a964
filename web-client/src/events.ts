/** Removes the listener it was returned for. */
export type Unsubscribe = () => void;

/** What an event calls. */
export type Listener<Args extends unknown[]> = (...args: Args) => void;

/** A typed event source. `Events` maps an event's name to the list of its listeners' arguments. */
export class Emitter<Events extends { [K in keyof Events]: unknown[] }> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Calls `listener` at every event of this type until the returned function is called. */
  on<K extends keyof Events>(type: K, listener: Listener<Events[K]>): Unsubscribe {
    let set = this.#listeners.get(type);
    if (!set) this.#listeners.set(type, (set = new Set()));
    set.add(listener);
    return () => this.off(type, listener);
  }

  /** Removes a listener that `on` or `once` added. */
  off<K extends keyof Events>(type: K, listener: Listener<Events[K]>): void {
    this.#listeners.get(type)?.delete(listener);
  }

  /** Calls `listener` at the next event of this type only. */
  once<K extends keyof Events>(type: K, listener: Listener<Events[K]>): Unsubscribe {
    const off = this.on(type, (...args) => {
      off();
      listener(...args);
    });
    return off;
  }

  /**
   * Calls the listeners in the order in which they were added. One that throws does not keep the others from being called; its error is reported as uncaught.
   * @internal
   */
  emit<K extends keyof Events>(type: K, ...args: Events[K]): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        (listener as Listener<unknown[]>)(...args);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
