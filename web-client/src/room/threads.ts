import sessionUrl from "../workers/session.worker.ts?worker&url";
import videoUrl from "../workers/video.worker.ts?worker&url";
import type { FromSession, PageToVideo, ToSession, VideoToPage } from "../workers/messages.js";

/** The two workers of a room, wired to each other. */
export class Threads {
  readonly #session = new Worker(sessionUrl, { type: "module", name: "wzp-session" });
  readonly #video = new Worker(videoUrl, { type: "module", name: "wzp-video" });
  /** The session worker's end of the line between the two. */
  readonly videoPort: MessagePort;

  constructor(onSession: (message: FromSession) => void, onVideo: (message: VideoToPage) => void, onFailure: (reason: string) => void) {
    const channel = new MessageChannel();
    this.videoPort = channel.port1;
    this.#session.onmessage = (event: MessageEvent<FromSession>) => onSession(event.data);
    this.#video.onmessage = (event: MessageEvent<VideoToPage>) => onVideo(event.data);
    this.#session.onerror = (event) => onFailure(event.message || "the session worker did not load");
    this.#video.onerror = (event) => onFailure(event.message || "the video worker did not load");
    this.toVideo({ type: "session", port: channel.port2 }, [channel.port2]);
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
}
