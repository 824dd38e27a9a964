import { h264BaselineFor } from "../media/h264.js";

/** What this browser encodes video with. */
export type VideoCodec = "h264" | "av1";

/** AV1 main profile, level 3.0, 8 bit: 480p at 30 pictures per second and beyond in practice. */
const AV1 = "av01.0.04M.08";
/** A codec whose pictures come out later than this is no good for talking, ms. */
const MAX_LATENCY_MS = 100;
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

async function isPrompt(codec: VideoCodec): Promise<boolean> {
  if (!(await isSupported(codec))) return false;
  return new Promise((resolve) => {
    let waiting = 0;
    let timer: ReturnType<typeof setInterval> | undefined;
    let deadline: ReturnType<typeof setTimeout> | undefined;
    const finish = (prompt: boolean): void => {
      clearInterval(timer);
      clearTimeout(deadline);
      if (encoder.state !== "closed") encoder.close();
      resolve(prompt);
    };
    const encoder = new VideoEncoder({
      output: () => {
        waiting--;
        // Two pictures out, and no more than one still inside: it does not hold back.
        if (++count >= 2 && waiting <= 1) finish(true);
      },
      error: () => finish(false),
    });
    let count = 0;
    let index = 0;
    const feed = (): void => {
      const frame = new VideoFrame(new Uint8Array((WIDTH * HEIGHT * 3) / 2).fill(96 + index), {
        format: "I420", codedWidth: WIDTH, codedHeight: HEIGHT, timestamp: index++ * 33_333,
      });
      waiting++;
      encoder.encode(frame, { keyFrame: index === 1 });
      frame.close();
    };
    try {
      encoder.configure(encoderConfig(codec, WIDTH, HEIGHT, 30, 1_000_000));
      feed();
      timer = setInterval(feed, 33);
      // The encoder's start (loading, threads, a busy machine) is not its latency, so the first pictures get time of their own. Who holds pictures
      // back gives none in this time either.
      deadline = setTimeout(() => finish(false), 10 * MAX_LATENCY_MS);
    } catch {
      finish(false);
    }
  });
}
