import type { MidInfo } from "../control/messages.js";
import { rms } from "../playout/spectrum.js";
import type { PlayedStream, Playback } from "../playout/playback.js";
import type { LiveTrack } from "../room/remote-track.js";
import type { Turns } from "../room/turns.js";
import { epochNow, type PlayedSound } from "../workers/messages.js";
import { ReplayWatch, type Presented } from "./replay-watch.js";

/** What one receiving m-line shows or plays at the moment. */
interface Bound {
  mid: string;
  participant: number;
  kind: "audio" | "video";
  slot: number;
  firstAt: number;
  video: HTMLVideoElement | undefined;
  /** Whether the canvas has pictures too, at this moment; `undefined`: not known yet. */
  drawn: boolean | undefined;
  sound: PlayedStream | undefined;
}

/** Shows and plays what arrives by WebRTC, by the gateway's word about which m-line carries what. */
export class RemoteMedia {
  /** A browser that has a picture and does not tell of presented ones in this time never does, for an element outside of the page, ms. */
  static readonly SILENT_MS = 100;

  readonly #bound = new Map<string, Bound>();
  #samples = new Float32Array(0);

  constructor(
    readonly playback: Playback,
    readonly turns: Turns,
    readonly track: (mid: string) => MediaStreamTrack | undefined,
    readonly find: (participant: number, kind: "audio" | "video", slot: number) => LiveTrack | undefined,
    /** The track is not carried here any more: back to its canvas, at once or, with a `last` picture, when that has one of now. */
    readonly released: (track: LiveTrack, last?: HTMLCanvasElement) => void,
    /** A picture will be carried here; `drawn` is to be called if its canvas has one from now. */
    readonly taken: (participant: number, slot: number, drawn: () => void) => void,
  ) {}

  /** Takes the complete list. @returns the m-lines whose source changed */
  update(mids: readonly MidInfo[]): string[] {
    const wanted = new Map(mids.filter((info) => info.source !== null).map((info) => [info.mid, info]));
    const changed: string[] = [];
    for (const [mid, bound] of this.#bound) {
      const info = wanted.get(mid);
      if (info && info.source === bound.participant && info.kind === bound.kind && info.slot === bound.slot) continue;
      this.#release(bound);
    }
    for (const [mid, info] of wanted) {
      if (this.#bound.has(mid) || info.source === null) continue;
      this.#bind(mid, info.source, info.kind, info.slot);
      changed.push(mid);
    }
    return changed;
  }

  /** What is carried: m-line, whose, and when the first of it was shown or heard. */
  get carried(): readonly Readonly<Bound>[] {
    return [...this.#bound.values()];
  }

  /** What each m-line played just now, to be measured where it holds nobody up. */
  played(): PlayedSound[] {
    return [...this.#bound.values()].flatMap(({ mid, sound }): PlayedSound[] => {
      if (!sound) return [];
      return [{ mid, samples: sound.lastSecond(), sampleRate: this.playback.context.sampleRate }];
    });
  }

  /** Levels over about the last tenth of a second. */
  levels(): [participant: number, level: number][] {
    return [...this.#bound.values()].flatMap((bound): [number, number][] => {
      const analyser = bound.sound?.level;
      if (!analyser) return [];
      if (this.#samples.length !== analyser.fftSize) this.#samples = new Float32Array(analyser.fftSize);
      analyser.getFloatTimeDomainData(this.#samples);
      const level = rms(this.#samples);
      if (bound.firstAt === 0 && level > 0) bound.firstAt = epochNow();
      return [[bound.participant, level]];
    });
  }

  close(): void {
    for (const bound of [...this.#bound.values()]) this.#release(bound, true);
  }

  #bind(mid: string, participant: number, kind: "audio" | "video", slot: number): void {
    const media = this.track(mid);
    if (!media) return;
    const bound: Bound = { mid, participant, kind, slot, firstAt: 0, video: undefined, drawn: undefined, sound: undefined };
    this.#bound.set(mid, bound);
    if (kind === "video") {
      this.taken(participant, slot, () => (bound.drawn = true));
      setTimeout(() => (bound.drawn ??= false), RemoteMedia.SILENT_MS);
    }
    this.turns.add(() => {
      if (this.#bound.get(mid) !== bound) return;
      if (kind === "audio") bound.sound = this.playback.addStream(new MediaStream([media]));
      else bound.video = this.#show(bound, media);
    });
  }

  #show(bound: Bound, media: MediaStreamTrack): HTMLVideoElement {
    const video = document.createElement("video");
    // Sound comes from elsewhere, and a muted element may always play.
    video.muted = true;
    video.autoplay = true;
    video.playsInline = true;
    video.srcObject = new MediaStream([media]);
    const track = (): LiveTrack | undefined => (this.#bound.get(bound.mid) === bound ? this.find(bound.participant, "video", bound.slot) : undefined);
    video.addEventListener("resize", () => track()?.setSize(video.videoWidth, video.videoHeight));
    let quiet: ReturnType<typeof setTimeout> | undefined;
    const first = (): void => {
      clearTimeout(quiet);
      if (bound.firstAt !== 0 || this.#bound.get(bound.mid) !== bound) return;
      bound.firstAt = epochNow();
      const live = track();
      // Not before there is a picture, so that the canvas, if it has one, stays until then.
      live?.setElement(video);
      live?.setSize(video.videoWidth, video.videoHeight);
      live?.setFirst(bound.firstAt);
    };
    // The element is not in the page yet, and some browsers tell of presented pictures only for those that are.
    let told = false;
    const watch = new ReplayWatch();
    const presented = (now: number, picture: Presented): void => {
      told = true;
      clearTimeout(quiet);
      if (bound.firstAt !== 0 || this.#bound.get(bound.mid) !== bound) return;
      // An old picture is better than none, but not than those on the canvas.
      const live = track();
      if (live && (watch.presented(now, picture) || live.firstShownAt === 0 || bound.drawn === false)) {
        first();
        return;
      }
      quiet = setTimeout(first, ReplayWatch.QUIET_MS);
      video.requestVideoFrameCallback(presented);
    };
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(presented);
    const silent = (): unknown => setTimeout(() => !told && first(), "requestVideoFrameCallback" in video ? RemoteMedia.SILENT_MS : 0);
    video.addEventListener("loadeddata", silent, { once: true });
    void video.play().catch(() => undefined);
    return video;
  }

  /** `over`: not only for this track, which therefore comes by the other road soon, but not at once. */
  #release(bound: Bound, over = false): void {
    this.#bound.delete(bound.mid);
    bound.sound?.stop();
    const { video } = bound;
    if (!video) return;
    const track = this.find(bound.participant, "video", bound.slot);
    if (track?.element === video) this.released(track, over ? copyOf(video) : undefined);
    video.srcObject = null;
  }
}

/** What it shows: a stream that has ended shows nothing in some browsers. */
function copyOf(video: HTMLVideoElement): HTMLCanvasElement | undefined {
  if (video.videoWidth === 0) return undefined;
  const copy = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  copy.getContext("2d", { alpha: false })?.drawImage(video, 0, 0);
  return copy;
}
