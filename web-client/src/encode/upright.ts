/** Turns pictures upright before encoding: a stream has no place for "turn me". */
export class Upright {
  #canvas: OffscreenCanvas | undefined;

  /** Gives the picture upright; the one given in is closed if it is replaced. */
  apply(frame: VideoFrame): VideoFrame {
    const rotation = frame.rotation ?? 0;
    const flip = frame.flip ?? false;
    if (rotation === 0 && !flip) return frame;
    // Chromium's displayWidth and displayHeight are already those of the turned picture, and drawImage turns it.
    const width = frame.displayWidth;
    const height = frame.displayHeight;
    if (this.#canvas?.width !== width || this.#canvas.height !== height) this.#canvas = new OffscreenCanvas(width, height);
    const context = this.#canvas.getContext("2d", { alpha: false });
    if (!context) return frame;
    context.drawImage(frame, 0, 0, width, height);
    const upright = new VideoFrame(this.#canvas, { timestamp: frame.timestamp });
    frame.close();
    return upright;
  }
}
