/** What is needed of a WebSocket to keep it for later. */
export interface Preparable {
  onclose: ((event: CloseEvent) => void) | null;
  close(code?: number): void;
}

/** A connection that is opened before it is needed: whoever then joins is spared the round trips of TCP, TLS and HTTP. */
export class PreparedSocket<S extends Preparable> {
  /** The gateway gives whoever has connected 10 s to join, ms. */
  static readonly KEPT_MS = 8000;

  #kept: { url: string; socket: S; timer: ReturnType<typeof setTimeout> } | undefined;

  constructor(readonly open: (url: string) => S) {}

  /** Opens one for this address, unless one is there. */
  prepare(url: string): void {
    if (this.#kept?.url === url) return;
    this.#drop();
    let socket: S;
    try {
      socket = this.open(url);
    } catch {
      // Joining fails in the same way, and says so.
      return;
    }
    const timer = setTimeout(() => this.#drop(), PreparedSocket.KEPT_MS);
    // Refused or lost, unseen: joining opens another, and learns why.
    socket.onclose = () => {
      if (this.#kept?.socket === socket) this.#forget();
    };
    this.#kept = { url, socket, timer };
  }

  /** The one for this address, open or about to be; a new one if there is none. */
  take(url: string): S {
    const kept = this.#kept;
    if (kept?.url !== url) this.#drop();
    this.#forget();
    return kept?.url === url ? kept.socket : this.open(url);
  }

  #drop(): void {
    const socket = this.#kept?.socket;
    this.#forget();
    socket?.close(1000);
  }

  #forget(): void {
    clearTimeout(this.#kept?.timer);
    this.#kept = undefined;
  }
}
