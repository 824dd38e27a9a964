import { trackKey, type PageToVideo, type TrackKey } from "../workers/messages.js";
import { PictureStream } from "./picture-stream.js";
import type { LiveTrack } from "./remote-track.js";
import type { Turns } from "./turns.js";

/** Where the pictures that the worker decodes are shown: the elements of tracks that come by the WebSocket. */
export class Screens {
  /** So long after its first picture a track goes from its canvas to a stream, ms: most are taken over by WebRTC before. */
  static readonly STREAM_MS = 2000;
  /** A page may take so long to replace an element, ms. */
  static readonly REPLACE_MS = 500;

  /** A canvas, or the `<video>` of a stream. */
  readonly #elements = new WeakMap<LiveTrack, HTMLElement>();
  #first = true;
  readonly #streams = new Map<LiveTrack, PictureStream>();
  readonly #timers = new Map<LiveTrack, ReturnType<typeof setTimeout>>();
  /** What is to be done when a track has a picture of now. */
  readonly #waiting = new Map<LiveTrack, (() => void)[]>();

  constructor(
    readonly turns: Turns,
    readonly toVideo: (message: PageToVideo, transfer?: Transferable[]) => void,
    /** Whether the track is in the room. */
    readonly has: (track: LiveTrack) => boolean,
  ) {}

  /** The track comes by the WebSocket: its screen is its element. */
  add(track: LiveTrack): void {
    if (track.kind !== "video") return;
    let element = this.#elements.get(track);
    if (!element) {
      const canvas = (element = document.createElement("canvas"));
      this.#elements.set(track, element);
      const give = (): void => {
        if (!this.has(track)) return;
        const offscreen = canvas.transferControlToOffscreen();
        this.toVideo({ type: "canvas", key: keyOf(track), canvas: offscreen }, [offscreen]);
      };
      // The first picture of a room is what everybody waits for; many at once would hold the page up.
      if (this.#first) queueMicrotask(give);
      else this.turns.add(give);
      this.#first = false;
    }
    track.setElement(element);
    this.streamLater(track);
  }

  remove(track: LiveTrack): void {
    this.toVideo({ type: "release", key: keyOf(track) });
    this.#streams.get(track)?.close();
    this.#streams.delete(track);
    clearTimeout(this.#timers.get(track));
    this.#timers.delete(track);
    this.drawn(track);
  }

  close(): void {
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  /** Whether the page has of a track what the worker shows. */
  shows(track: LiveTrack): boolean {
    return track.element === this.#elements.get(track);
  }

  /** WebRTC has ended: its last picture stays until the screen has one of now. */
  backTo(track: LiveTrack, last: HTMLCanvasElement | undefined): void {
    if (!last) {
      this.add(track);
      return;
    }
    track.setElement(last);
    this.whenDrawn(track, () => {
      if (track.element === last) this.add(track);
    });
  }

  /** Calls `then` when the worker shows a picture of now, or can show none. */
  whenDrawn(track: LiveTrack, then: () => void): void {
    this.#waiting.set(track, [...(this.#waiting.get(track) ?? []), then]);
    this.toVideo({ type: "tell", key: keyOf(track) });
  }

  drawn(track: LiveTrack): void {
    const waiting = this.#waiting.get(track) ?? [];
    this.#waiting.delete(track);
    for (const then of waiting) then();
  }

  /** From its canvas to a stream, if the track still comes by the WebSocket then, and is looked at. */
  streamLater(track: LiveTrack): void {
    if (this.#streams.has(track)) return;
    clearTimeout(this.#timers.get(track));
    this.#timers.set(track, setTimeout(() => this.#stream(track), Screens.STREAM_MS));
  }

  #stream(track: LiveTrack): void {
    this.#timers.delete(track);
    if (!this.has(track) || !this.shows(track) || track.firstShownAt === 0) return;
    if (!track.wanted) {
      this.streamLater(track);
      return;
    }
    const stream = PictureStream.make();
    if (!stream) return;
    this.#streams.set(track, stream);
    const { writable, element } = stream;
    this.toVideo({ type: "stream", key: keyOf(track), stream: writable }, [writable]);
    stream.whenResized((width, height) => this.shows(track) && track.setSize(width, height));
    stream.whenShown(() => {
      if (!this.has(track)) return;
      const shown = this.shows(track);
      this.#elements.set(track, element);
      if (shown) track.setElement(element);
      setTimeout(() => this.has(track) && this.toVideo({ type: "streamed", key: keyOf(track) }), Screens.REPLACE_MS);
    });
  }
}

function keyOf(track: LiveTrack): TrackKey {
  return trackKey({ source: track.participantId, kind: track.kind, slot: track.slot });
}
