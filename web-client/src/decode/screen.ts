/**
 * Where the pictures of one track are shown: on a canvas, which has its first picture the soonest, and then by a stream for a
 * `<video>`, if the page has one to give (see `PictureStream`), which costs much less per picture.
 */
export class Screen {
  /** Pictures that may wait for a stream: it takes them at once, or is stuck. */
  static readonly WAITING = 4;

  #canvas: OffscreenCanvas | undefined;
  #context: OffscreenCanvasRenderingContext2D | null = null;
  #stream: WritableStreamDefaultWriter<VideoFrame> | undefined;

  constructor(canvas: OffscreenCanvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false, desynchronized: false });
  }

  /** Draws a picture that nobody sees: a worker's first takes 5 ms more than the next. */
  static warm(picture: VideoFrame): void {
    new Screen(new OffscreenCanvas(1, 1)).show(picture);
  }

  /** From now on every picture goes there, too. */
  setStream(stream: WritableStream<VideoFrame>): void {
    this.#stream = stream.getWriter();
    // It ends when the page stops it, which is no error.
    this.#stream.closed.catch(() => undefined);
  }

  /** The page shows the stream: the canvas is not needed any more. */
  releaseCanvas(): void {
    this.#context = null;
    if (this.#canvas) this.#canvas.width = this.#canvas.height = 1;
    this.#canvas = undefined;
  }

  /** @returns whether it is shown; the picture is still the caller's. */
  show(picture: VideoFrame): boolean {
    const { displayWidth: width, displayHeight: height } = picture;
    if (this.#canvas && this.#context) {
      if (this.#canvas.width !== width || this.#canvas.height !== height) {
        this.#canvas.width = width;
        this.#canvas.height = height;
      }
      this.#context.drawImage(picture, 0, 0, width, height);
    }
    if (this.#stream && (this.#stream.desiredSize ?? -Infinity) > -Screen.WAITING) {
      // The stream closes what it is given.
      const copy = picture.clone();
      this.#stream.write(copy).catch(() => copy.close());
    }
    return this.#context !== null || this.#stream !== undefined;
  }
}
