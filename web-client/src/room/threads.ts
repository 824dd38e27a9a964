import sessionUrl from "../workers/session.worker.ts?worker&url";
import videoUrl from "../workers/video.worker.ts?worker&url";
import type { FromSession, PageToVideo, ToSession, VideoToPage } from "../workers/messages.js";

/** What the workers say to their room. */
export interface ThreadEvents {
  session(message: FromSession): void;
  video(message: VideoToPage): void;
  failed(reason: string): void;
}

/** The two workers of a room, wired to each other. */
export class Threads {
  /** Started ahead of the next room. */
  static #spare: Threads | undefined;

  readonly #session = new Worker(sessionUrl, { type: "module", name: "wzp-session" });
  readonly #video = new Worker(videoUrl, { type: "module", name: "wzp-video" });
  /** The session worker's end of the line between the two. */
  readonly videoPort: MessagePort;
  #events: ThreadEvents | undefined;
  #failure: string | undefined;

  private constructor() {
    const channel = new MessageChannel();
    this.videoPort = channel.port1;
    this.#session.onmessage = (event: MessageEvent<FromSession>) => this.#events?.session(event.data);
    this.#video.onmessage = (event: MessageEvent<VideoToPage>) => this.#events?.video(event.data);
    this.#session.onerror = (event) => this.#fail(event.message || "the session worker did not load");
    this.#video.onerror = (event) => this.#fail(event.message || "the video worker did not load");
    this.toVideo({ type: "session", port: channel.port2 }, [channel.port2]);
  }

  /** Starts workers for the next room, and has them connect to its gateway if that is known. */
  static prepare(socketUrl?: string): void {
    Threads.#spare ??= new Threads();
    if (socketUrl !== undefined) Threads.#spare.toSession({ type: "prepare", url: socketUrl });
  }

  /** Workers for a room: those that were prepared, unless they failed to start. */
  static take(events: ThreadEvents): Threads {
    const spare = Threads.#spare;
    Threads.#spare = undefined;
    const threads = spare && spare.#failure === undefined ? spare : new Threads();
    threads.#events = events;
    return threads;
  }

  toSession(message: ToSession, transfer: Transferable[] = []): void {
    this.#session.postMessage(message, transfer);
  }

  toVideo(message: PageToVideo, transfer: Transferable[] = []): void {
    this.#video.postMessage(message, transfer);
  }

  terminate(): void {
    this.#session.terminate();
    this.#video.terminate();
  }

  #fail(reason: string): void {
    this.#failure ??= reason;
    this.#events?.failed(reason);
  }
}
