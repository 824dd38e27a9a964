import { describe, expect, it } from "vitest";
import { Screen } from "./screen.js";

interface Picture {
  displayWidth: number;
  displayHeight: number;
  closed: boolean;
}

const made: Picture[] = [];

function picture(displayWidth: number, displayHeight: number): VideoFrame {
  const one = {
    displayWidth, displayHeight, closed: false,
    clone: () => picture(displayWidth, displayHeight),
    close: () => void (one.closed = true),
  };
  made.push(one);
  return one as unknown as VideoFrame;
}

function canvas(): { canvas: OffscreenCanvas; drawn: number[][] } {
  const drawn: number[][] = [];
  const context = { drawImage: (_: unknown, ...place: number[]) => void drawn.push(place) };
  return { canvas: { width: 300, height: 150, getContext: () => context } as unknown as OffscreenCanvas, drawn };
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

describe("a screen", () => {
  it("is a canvas as large as the picture, then a stream, too, and then only that", async () => {
    const { canvas: shown, drawn } = canvas();
    const screen = new Screen(shown);
    expect(screen.show(picture(640, 360))).toBe(true);
    expect([shown.width, shown.height, drawn]).toEqual([640, 360, [[0, 0, 640, 360]]]);
    const taken: VideoFrame[] = [];
    screen.setStream(new WritableStream({ write: (frame: VideoFrame) => void taken.push(frame) }));
    await turn();
    expect(screen.show(picture(320, 180))).toBe(true);
    await turn();
    expect([drawn.length, taken.map(({ displayWidth }) => displayWidth)]).toEqual([2, [320]]);
    screen.releaseCanvas();
    expect([shown.width, shown.height]).toEqual([1, 1]);
    expect(screen.show(picture(320, 180))).toBe(true);
    await turn();
    expect([drawn.length, taken.length]).toEqual([2, 2]);
  });

  it("gives the stream a picture of its own, and the caller keeps his", async () => {
    const screen = new Screen(canvas().canvas);
    screen.setStream(new WritableStream({ write: (frame: VideoFrame) => frame.close() }));
    made.length = 0;
    screen.show(picture(2, 2));
    await turn();
    expect(made.map(({ closed }) => closed)).toEqual([false, true]);
  });

  it("shows nothing without a context", () => {
    const screen = new Screen({ width: 1, height: 1, getContext: () => null } as unknown as OffscreenCanvas);
    expect(screen.show(picture(2, 2))).toBe(false);
  });

  it("keeps no more than a few pictures for a stream that takes none, and closes those of one that has ended", async () => {
    const stuck = new Screen(canvas().canvas);
    stuck.setStream(new WritableStream({ write: () => new Promise(() => undefined) }));
    await turn();
    made.length = 0;
    for (let n = 0; n < 100; n++) stuck.show(picture(2, 2));
    expect(made.length - 100).toBeLessThanOrEqual(Screen.WAITING + 2);
    const ended = new Screen(canvas().canvas);
    ended.setStream(new WritableStream({ write: () => Promise.reject(new Error("stopped")) }));
    await turn();
    made.length = 0;
    ended.show(picture(2, 2));
    await turn();
    expect(made.map(({ closed }) => closed)).toEqual([false, true]);
    ended.show(picture(2, 2));
    expect(made).toHaveLength(3);
  });
});
