import { SpareDecoder } from "../decode/picture-decoder.js";
import { Screen } from "../decode/screen.js";
import { TrackDecoder } from "../decode/track-decoder.js";
import type { PageToVideo, SessionToVideo, TrackKey, VideoToPage, VideoToSession } from "./messages.js";
import { workerScope } from "./scope.js";

// The worker that decodes and draws all remote video. Encoded pictures come from the session worker, canvases from the page.

const page = workerScope<PageToVideo, VideoToPage>();
const tracks = new Map<TrackKey, TrackDecoder>();
const screens = new Map<TrackKey, Screen>();
const spare = new SpareDecoder((gray) => Screen.warm(gray));
/** Whose picture the page waits for, and of whom nothing has come yet. */
const awaited = new Set<TrackKey>();
/** In the room for so long without needing the spare decoder: it goes, since devices have few, ms. */
const SPARE_MS = 10_000;
/** Whose sound WebRTC carries: what is left of it by the WebSocket, later than that, is nothing to wait for. */
let voices = new Set<number>();
let session: MessagePort | undefined;
let clock: { timestamp: number; at: number } | undefined;
let lastBacklog = 0;

function toSession(message: VideoToSession): void {
  session?.postMessage(message);
}

function track(key: TrackKey): TrackDecoder {
  let found = tracks.get(key);
  if (!found) {
    found = new TrackDecoder(key, {
      needKeyframe: () => toSession({ type: "keyframe", key }),
      size: (width, height) => page.postMessage({ type: "size", key, width, height }),
      first: (at) => page.postMessage({ type: "first", key, at }),
      drawn: (width, height) => page.postMessage({ type: "drawn", key, width, height }),
      live: () => page.postMessage({ type: "live", key }),
      unsupported: (codec) => page.postMessage({ type: "unsupported", key, codec }),
      supported: () => page.postMessage({ type: "supported", key }),
    }, spare);
    if (clock) found.presenter.setRoomClock(clock.timestamp, clock.at);
    const screen = screens.get(key);
    if (screen) found.setScreen(screen);
    tracks.set(key, found);
    if (awaited.delete(key)) found.tell();
  }
  return found;
}

function picturesOf(participant: number): TrackDecoder[] {
  return [...tracks].flatMap(([key, decoder]) => (key.startsWith(`${participant}:`) ? [decoder] : []));
}

function reportBacklog(): void {
  const ms = Math.max(0, ...[...tracks.values()].map((decoder) => decoder.backlogMs));
  if (ms === lastBacklog) return;
  lastBacklog = ms;
  toSession({ type: "backlog", ms });
}

function fromSession(message: SessionToVideo): void {
  switch (message.type) {
    case "pictures":
      for (const picture of message.pictures) track(picture.key).push(picture);
      break;
    case "remove":
      tracks.get(message.key)?.close();
      tracks.delete(message.key);
      break;
    case "clock":
      clock = message;
      setTimeout(() => spare.drop(), SPARE_MS);
      for (const decoder of tracks.values()) decoder.presenter.setRoomClock(message.timestamp, message.at);
      break;
    case "heard":
      if (voices.has(message.participant) !== message.elsewhere) break;
      for (const decoder of picturesOf(message.participant)) decoder.presenter.setHeard(message.timestamp, message.at, message.elsewhere);
      break;
    case "stats":
      toSession({ type: "stats", request: message.request, tracks: [...tracks.values()].map((decoder) => decoder.stats()) });
      break;
  }
}

page.onmessage = ({ data }) => {
  switch (data.type) {
    case "session":
      session = data.port;
      session.onmessage = (event: MessageEvent<SessionToVideo>) => fromSession(event.data);
      setInterval(reportBacklog, 100);
      spare.prepare();
      break;
    case "canvas": {
      const screen = new Screen(data.canvas);
      screens.set(data.key, screen);
      tracks.get(data.key)?.setScreen(screen);
      break;
    }
    case "stream":
      screens.get(data.key)?.setStream(data.stream);
      break;
    case "streamed":
      screens.get(data.key)?.releaseCanvas();
      break;
    case "tell":
      if (tracks.has(data.key)) tracks.get(data.key)?.tell();
      else awaited.add(data.key);
      break;
    case "voices":
      voices = new Set(data.participants);
      for (const participant of voices) for (const decoder of picturesOf(participant)) decoder.presenter.setUnheard();
      break;
    case "release":
      awaited.delete(data.key);
      screens.delete(data.key);
      tracks.get(data.key)?.close();
      tracks.delete(data.key);
      break;
  }
};
