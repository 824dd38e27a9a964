import type { CaptureFeed, TrackSwitch } from "../workers/messages.js";
import { captureSound } from "./sound-graph.js";
import { captureElement } from "./video-element.js";

/** A track being read: what to give to the session worker, and how to stop. */
export interface Capture {
  feed: CaptureFeed;
  transfer: Transferable[];
  stop: () => void;
}

/**
 * Reads a track by the best road that this browser has:
 * 1. a MediaStreamTrackProcessor on the window, whose stream goes to the worker (Chromium; sound and pictures);
 * 2. the track itself goes to the worker, which reads it there (Safari; pictures);
 * 3. a `<video>` element for pictures, an AudioWorklet for sound (Firefox; Safari's sound).
 */
export async function openCapture(track: MediaStreamTrack, context: AudioContext): Promise<Capture> {
  const readable = streamOf(track);
  if (readable) return { feed: { road: "stream", readable }, transfer: [readable], stop: () => undefined };
  if (track.kind === "audio") return captureSound(track, context);
  const clone = workersReadTracks ? transferableClone(track) : undefined;
  return clone ? captureClone(track, clone) : captureElement(track);
}

/** A worker said that it cannot read tracks: browsers learned to hand them over and to read them at different times. */
export function avoidTrackRoad(): void {
  workersReadTracks = false;
}

let workersReadTracks = true;

/** How often the page's own track is looked at, ms; no event tells that it was stopped or disabled here. */
const LOOK_MS = 200;

/** A clone lives a life of its own: what becomes of the original has to be told, or the camera's light stays on. */
function captureClone(track: MediaStreamTrack, clone: MediaStreamTrack): Capture {
  const { port1, port2 } = new MessageChannel();
  let told: TrackSwitch = "on";
  const look = (): void => {
    const now: TrackSwitch = track.readyState === "ended" ? "ended" : track.enabled ? "on" : "off";
    if (now === told) return;
    told = now;
    port1.postMessage(now);
    if (now === "ended") clearInterval(timer);
  };
  const timer = setInterval(look, LOOK_MS);
  look();
  return {
    feed: { road: "track", track: clone, switches: port2 },
    transfer: [clone, port2],
    stop: () => {
      clearInterval(timer);
      port1.close();
    },
  };
}

function streamOf(track: MediaStreamTrack): ReadableStream<VideoFrame | AudioData> | undefined {
  if (typeof MediaStreamTrackProcessor === "undefined") return undefined;
  try {
    return new MediaStreamTrackProcessor({ track }).readable;
  } catch {
    // Sound is not part of the standard, so a browser may refuse it.
    return undefined;
  }
}

/** A clone that can be sent to a worker. Whether tracks can is not to be seen on them; trying is the only way. */
function transferableClone(track: MediaStreamTrack): MediaStreamTrack | undefined {
  const probe = track.clone();
  const channel = new MessageChannel();
  try {
    channel.port1.postMessage(probe, [probe]);
    return track.clone();
  } catch {
    return undefined;
  } finally {
    probe.stop();
    channel.port1.close();
    channel.port2.close();
  }
}
