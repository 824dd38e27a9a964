/**
 * A `<video>` for pictures that a worker decodes. Chromium draws it without converting each picture first, as it does for a
 * canvas: without a GPU that is a third of all work (nine tiles of 640×360 at 30 pictures a second: 80 % of a core, not 126).
 */
export class PictureStream {
  readonly element = document.createElement("video");
  readonly #generator: MediaStreamTrackGenerator;

  private constructor(generator: MediaStreamTrackGenerator) {
    this.#generator = generator;
    // There is no sound in it, and a muted element may always play.
    this.element.muted = true;
    this.element.autoplay = true;
    this.element.playsInline = true;
    this.element.srcObject = new MediaStream([generator]);
    // Browsers pause what is taken out of the page, and do not go on when it comes back.
    this.element.addEventListener("pause", () => this.#play());
  }

  /** @returns one, where the browser has such streams. */
  static make(): PictureStream | undefined {
    if (typeof MediaStreamTrackGenerator === "undefined") return undefined;
    try {
      return new PictureStream(new MediaStreamTrackGenerator({ kind: "video" }));
    } catch {
      return undefined;
    }
  }

  /** Where the pictures go; to be transferred to the worker that has them. */
  get writable(): WritableStream<VideoFrame> {
    return this.#generator.writable;
  }

  /** Calls `then` once, when the element has a picture. */
  whenShown(then: () => void): void {
    this.element.addEventListener("loadeddata", then, { once: true });
    this.#play();
  }

  /** Calls `then` whenever what the element shows has another size, px. */
  whenResized(then: (width: number, height: number) => void): void {
    this.element.addEventListener("resize", () => then(this.element.videoWidth, this.element.videoHeight));
  }

  #play(): void {
    if (this.element.srcObject) void this.element.play().catch(() => undefined);
  }

  close(): void {
    this.element.srcObject = null;
    this.#generator.stop();
  }
}
