import { epochNow, type CapturedMedia } from "../workers/messages.js";
import type { Capture } from "./capture.js";

/** No picture presented at all in this time, though the element plays: the clock takes over, ms. */
const SILENT_MS = 1000;

/** Reads a video track by playing it in an element that nobody sees, and taking each picture as it is presented. */
export function captureElement(track: MediaStreamTrack): Capture {
  const element = document.createElement("video");
  element.muted = true;
  element.playsInline = true;
  element.srcObject = new MediaStream([track]);
  const channel = new MessageChannel();
  let stopped = false;
  const started = performance.now();
  let presents = false;

  const take = (at: number): void => {
    if (stopped || element.videoWidth === 0 || !track.enabled) return;
    try {
      const frame = new VideoFrame(element, { timestamp: Math.round(at * 1000) });
      const media: CapturedMedia = { frame };
      channel.port1.postMessage(media, [frame]);
    } catch {
      // The element has no picture yet, or no more.
    }
  };
  const onPicture = (now: number, metadata: VideoFrameCallbackMetadata): void => {
    if (stopped) return;
    presents = true;
    take(performance.timeOrigin + (metadata.captureTime ?? now));
    element.requestVideoFrameCallback(onPicture);
  };
  // A hidden page presents nothing, and some browsers present nothing of an element that is not in the page: then pictures are taken by the clock,
  // as often as the browser lets us.
  const timer = setInterval(() => {
    if (document.hidden || (!presents && performance.now() - started > SILENT_MS)) take(epochNow());
  }, 66);
  element.requestVideoFrameCallback(onPicture);
  void element.play().catch(() => undefined);
  return {
    feed: { road: "port", port: channel.port2 },
    transfer: [channel.port2],
    stop: () => {
      stopped = true;
      clearInterval(timer);
      element.srcObject = null;
      channel.port1.close();
    },
  };
}
