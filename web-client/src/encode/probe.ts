import { h264BaselineFor } from "../media/h264.js";

/** What this browser encodes video with. */
export type VideoCodec = "h264" | "av1";

/** AV1 main profile, level 3.0, 8 bit: 480p at 30 pictures per second and beyond in practice. */
const AV1 = "av01.0.04M.08";
/** A codec whose pictures come out later than this is no good for talking, ms. */
const MAX_LATENCY_MS = 100;
/** The encoder's start (loading, threads, a busy machine) is not its latency: its first pictures are not measured, and get this time, ms. */
const START_MS = 1000;
const UNMEASURED = 2;
/** Pictures whose way is measured after that … */
const MEASURED = 4;
/** … and so often anew, because they may be late through this machine's doing. */
const ROUNDS = 3;
const WIDTH = 640;
const HEIGHT = 360;

/** The configuration for realtime encoding of a size. */
export function encoderConfig(codec: VideoCodec, width: number, height: number, fps: number, bitrate: number): VideoEncoderConfig {
  const common = { width, height, framerate: fps, bitrate, latencyMode: "realtime" as const };
  if (codec === "h264") return { ...common, codec: h264BaselineFor(width, height, fps), avc: { format: "annexb" } };
  const level = width * height > 1280 * 720 ? "08M" : width * height > 854 * 480 ? "05M" : "04M";
  return { ...common, codec: AV1.replace("04M", level) };
}

let result: Promise<VideoCodec | undefined> | undefined;

/**
 * Finds the codec to send: H.264, which everybody can show, unless this browser's encoder is missing or holds pictures back (one that is in use
 * lags 1.4 s); then AV1. Measured once, by encoding a few grey pictures. `undefined`: this browser cannot encode video.
 */
export function chooseVideoCodec(): Promise<VideoCodec | undefined> {
  result ??= (async () => {
    if (typeof VideoEncoder === "undefined") return undefined;
    if (await isPrompt("h264")) return "h264";
    if (await isSupported("av1")) return "av1";
    return (await isSupported("h264")) ? "h264" : undefined;
  })();
  return result;
}

async function isSupported(codec: VideoCodec): Promise<boolean> {
  try {
    return (await VideoEncoder.isConfigSupported(encoderConfig(codec, WIDTH, HEIGHT, 30, 1_000_000))).supported === true;
  } catch {
    return false;
  }
}

/** Whether pictures come out of the encoder at most {@link MAX_LATENCY_MS} after they went in. */
export async function isPrompt(codec: VideoCodec): Promise<boolean> {
  if (!(await isSupported(codec))) return false;
  return new Promise((resolve) => {
    let timer: ReturnType<typeof setInterval> | undefined;
    let deadline: ReturnType<typeof setTimeout> | undefined;
    let index = 0;
    let inside = 0;
    let measuring = false;
    let [prompt, late, round] = [0, 0, 0];
    /** When each measured picture went in, by its timestamp. */
    const since = new Map<number, number>();
    const finish = (result: boolean): void => {
      clearInterval(timer);
      clearTimeout(deadline);
      if (encoder.state !== "closed") encoder.close();
      resolve(result);
    };
    const judge = (): void => {
      if (late > 1) {
        // The next round begins when all that is inside has come out: the last of a burst are no measure.
        measuring = false;
        prompt = late = 0;
        since.clear();
        if (++round >= ROUNDS) finish(false);
      } else if (prompt + late >= MEASURED) finish(true);
    };
    const encoder = new VideoEncoder({
      output: ({ timestamp }) => {
        inside--;
        const at = since.get(timestamp);
        if (at !== undefined) {
          since.delete(timestamp);
          if (performance.now() - at <= MAX_LATENCY_MS) prompt++;
          else late++;
          judge();
        } else if (index >= UNMEASURED && inside <= 1) measuring = true;
      },
      error: () => finish(false),
    });
    const feed = (): void => {
      const now = performance.now();
      for (const [timestamp, at] of since) {
        if (now - at <= MAX_LATENCY_MS) continue;
        since.delete(timestamp);
        late++;
      }
      judge();
      if (encoder.state === "closed") return;
      const timestamp = index * 33_333;
      const frame = new VideoFrame(new Uint8Array((WIDTH * HEIGHT * 3) / 2).fill(96 + index), {
        format: "I420", codedWidth: WIDTH, codedHeight: HEIGHT, timestamp,
      });
      if (measuring) since.set(timestamp, now);
      inside++;
      encoder.encode(frame, { keyFrame: index++ === 0 });
      frame.close();
    };
    try {
      encoder.configure(encoderConfig(codec, WIDTH, HEIGHT, 30, 1_000_000));
      feed();
      timer = setInterval(feed, 33);
      // Who holds pictures back never comes to the measured ones, or is late with them.
      deadline = setTimeout(() => {
        if (!measuring && round === 0) finish(false);
        else deadline = setTimeout(() => finish(false), START_MS);
      }, START_MS);
    } catch {
      finish(false);
    }
  });
}
