import { epochNow, type CapturedMedia } from "../workers/messages.js";
import type { Capture } from "./capture.js";

/** Reads a video track by playing it in an element that nobody sees, and taking each picture as it is presented. */
export function captureElement(track: MediaStreamTrack): Capture {
  const element = document.createElement("video");
  element.muted = true;
  element.playsInline = true;
  element.srcObject = new MediaStream([track]);
  const channel = new MessageChannel();
  let stopped = false;
  let timer: ReturnType<typeof setInterval> | undefined;

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
    take(performance.timeOrigin + (metadata.captureTime ?? now));
    element.requestVideoFrameCallback(onPicture);
  };
  // A hidden page presents nothing, so its pictures are taken by the clock, as often as the browser lets it.
  const onVisibility = (): void => {
    clearInterval(timer);
    if (document.hidden) timer = setInterval(() => take(epochNow()), 66);
  };
  element.requestVideoFrameCallback(onPicture);
  document.addEventListener("visibilitychange", onVisibility);
  onVisibility();
  void element.play().catch(() => undefined);
  return {
    feed: { road: "port", port: channel.port2 },
    transfer: [channel.port2],
    stop: () => {
      stopped = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", onVisibility);
      element.srcObject = null;
      channel.port1.close();
    },
  };
}
