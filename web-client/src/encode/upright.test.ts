import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Upright } from "./upright.js";

/** As much of a picture as turning it needs. */
class Picture {
  closed = false;
  readonly displayWidth: number;
  readonly displayHeight: number;
  readonly timestamp: number;
  constructor(
    readonly source: unknown,
    init: { timestamp: number; displayWidth?: number; displayHeight?: number },
    readonly rotation?: number,
    readonly flip?: boolean,
  ) {
    this.timestamp = init.timestamp;
    const canvas = source as Partial<Canvas>;
    this.displayWidth = init.displayWidth ?? canvas.width ?? 0;
    this.displayHeight = init.displayHeight ?? canvas.height ?? 0;
  }
  close(): void {
    this.closed = true;
  }
}

let canvases: Canvas[] = [];

class Canvas {
  drawn: unknown[][] = [];
  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    canvases.push(this);
  }
  getContext(): unknown {
    return { drawImage: (...what: unknown[]) => this.drawn.push(what) };
  }
}

/** What a camera gives: `width` and `height` are those of the picture as it is to be seen. */
const camera = (timestamp: number, width: number, height: number, rotation?: number, flip?: boolean): VideoFrame =>
  new Picture(undefined, { timestamp, displayWidth: width, displayHeight: height }, rotation, flip) as unknown as VideoFrame;

const closed = (frame: VideoFrame): boolean => (frame as unknown as Picture).closed;

describe("pictures of a phone", () => {
  beforeEach(() => {
    canvases = [];
    vi.stubGlobal("VideoFrame", Picture);
    vi.stubGlobal("OffscreenCanvas", Canvas);
  });
  afterEach(() => vi.unstubAllGlobals());

  it("that stand upright are left alone", () => {
    const frame = camera(1, 640, 360);
    expect(new Upright().apply(frame)).toBe(frame);
    expect(closed(frame)).toBe(false);
    expect(canvases).toHaveLength(0);
  });

  it("that lie on their side are drawn upright, in the size in which they are seen, and let go of", () => {
    const upright = new Upright();
    for (const rotation of [90, 270]) {
      const frame = camera(7, 360, 640, rotation);
      const turned = upright.apply(frame);
      expect([turned.displayWidth, turned.displayHeight, turned.timestamp]).toEqual([360, 640, 7]);
      expect(turned.rotation ?? 0).toBe(0);
      expect(canvases.at(-1)?.drawn.at(-1)).toEqual([frame, 0, 0, 360, 640]);
      expect(closed(frame)).toBe(true);
      expect(closed(turned)).toBe(false);
    }
    expect(canvases).toHaveLength(1);
  });

  it("that are mirrored or upside down are drawn too, and a phone that is turned gets a canvas of its new size", () => {
    const upright = new Upright();
    upright.apply(camera(1, 640, 360, 0, true));
    upright.apply(camera(2, 640, 360, 180));
    upright.apply(camera(3, 360, 640, 90));
    expect(canvases.map((canvas) => [canvas.width, canvas.height, canvas.drawn.length])).toEqual([
      [640, 360, 2],
      [360, 640, 1],
    ]);
  });
});
