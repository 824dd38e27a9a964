import { av1CodecString } from "../media/av1.js";
import { h264CodecString } from "../media/h264.js";
import { CODEC_AV1, CODEC_H264, codecName } from "../media/header.js";
import { epochNow, type TrackKey, type VideoTrackStats } from "../workers/messages.js";
import { PictureDecoder, type DecoderOwner, type SpareDecoder } from "./picture-decoder.js";
import { FreezeMeter, Presenter } from "./presenter.js";
import type { Screen } from "./screen.js";

/** One whole encoded picture. */
export interface EncodedPicture {
  codec: number;
  keyframe: boolean;
  /** Room clock, ms, unwrapped. */
  timestamp: number;
  arrived: number;
  data: Uint8Array;
}

export interface TrackDecoderEvents {
  needKeyframe(): void;
  size(width: number, height: number): void;
  first(at: number): void;
  /** After {@link TrackDecoder.tell}: a picture is on the screen that is no replay, or the last of one. */
  drawn(width: number, height: number): void;
  /** For the first time a picture is shown that is no replay. */
  live(): void;
  /** This browser cannot decode what arrives. No keyframe is asked for any more; those that come are tried. */
  unsupported(codec: string): void;
  /** After `unsupported`: a picture came out. */
  supported(): void;
}

/** Decodes one remote video track and draws it. */
export class TrackDecoder {
  /** So many failures one after the other, without a picture, mean that the codec cannot be decoded here. */
  static readonly HOPELESS = 3;
  /** A picture drawn at most so long ago is one of now, ms. */
  static readonly NOW_MS = 500;
  /** A replay of which no picture is drawn for so long has ended, ms; one that waits for a fresh keyframe goes on after 250. */
  static readonly QUIET_MS = 350;

  readonly #presenter = new Presenter<VideoFrame>();
  readonly #freezes = new FreezeMeter();
  readonly #owner: DecoderOwner = { output: (frame) => this.#output(frame), error: () => this.#restart() };
  #decoder: PictureDecoder | undefined;
  #screen: Screen | undefined;
  /** Arrival times by timestamp (µs) of what is inside the decoder. */
  readonly #inside = new Map<number, number>();
  #wantKeyframe = true;
  #newestReceived = 0;
  #newestDecoded = 0;
  #decoded = 0;
  #dropped = 0;
  #errors = 0;
  #width = 0;
  #height = 0;
  #firstAt = 0;
  #live = false;
  #drawnAt = -Infinity;
  #toTell = false;
  #tellTimer: ReturnType<typeof setTimeout> | undefined;
  /** Came before its screen. */
  #undrawn: VideoFrame | undefined;
  /** A decoder failed: from then on it is told exactly what comes. */
  #exact = false;
  #delay = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When it asks the presenter. */
  #wakeAt = Infinity;
  #complained = false;
  /** Failures since the last picture that came out. */
  #failures = 0;
  #codec = 0;

  constructor(
    readonly key: TrackKey,
    readonly events: TrackDecoderEvents,
    readonly spare?: SpareDecoder,
  ) {}

  get presenter(): Presenter<VideoFrame> {
    return this.#presenter;
  }

  /** How much received video waits for decoding, ms. */
  get backlogMs(): number {
    return this.#inside.size > 1 ? Math.max(0, this.#newestReceived - this.#newestDecoded) : 0;
  }

  setScreen(screen: Screen): void {
    this.#screen = screen;
    const waiting = this.#undrawn;
    this.#undrawn = undefined;
    if (!waiting) return;
    this.#draw(waiting, epochNow());
    waiting.close();
  }

  /** Asks for the event `drawn`, once. */
  tell(): void {
    this.#toTell = true;
    if (epochNow() - this.#drawnAt < TrackDecoder.NOW_MS) this.#tellDrawn();
  }

  #tellDrawn(): void {
    clearTimeout(this.#tellTimer);
    if (!this.#toTell) return;
    const tell = (): void => {
      this.#toTell = false;
      this.events.drawn(this.#width, this.#height);
    };
    if (this.#presenter.isCatchingUp) this.#tellTimer = setTimeout(tell, TrackDecoder.QUIET_MS);
    else tell();
  }

  push(picture: EncodedPicture): void {
    if (this.#wantKeyframe && !picture.keyframe) {
      this.#dropped++;
      return;
    }
    if (picture.keyframe && !this.#configure(picture)) return;
    // A tile that is shown again goes back to its last keyframe, which may be older than what is on the screen.
    const backwards = picture.keyframe && picture.timestamp < this.#newestReceived;
    if (this.#wantKeyframe || backwards || picture.timestamp - this.#newestReceived > 1000) {
      this.#presenter.expectReplay();
      this.#freezes.pause();
    }
    this.#wantKeyframe = false;
    this.#newestReceived = picture.timestamp;
    const timestamp = Math.round(picture.timestamp * 1000);
    this.#inside.set(timestamp, picture.arrived);
    try {
      this.#decoder?.decode({ type: picture.keyframe ? "key" : "delta", timestamp, data: picture.data });
    } catch {
      this.#restart();
    }
  }

  stats(): VideoTrackStats {
    return {
      key: this.key, framesDecoded: this.#decoded, framesDropped: this.#dropped, decodeErrors: this.#errors, width: this.#width, height: this.#height, firstFrameAt: this.#firstAt,
      freezeMs: this.#freezes.freezeMs, freezeCount: this.#freezes.freezeCount, delayMs: this.#delay,
    };
  }

  close(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#tellTimer);
    this.#undrawn?.close();
    this.#undrawn = undefined;
    this.#decoder?.close();
    this.#decoder = undefined;
    for (const item of this.#presenter.clear()) item.picture.close();
  }

  /** Makes the decoder fit a keyframe. @returns false if the codec cannot be decoded here. */
  #configure(picture: EncodedPicture): boolean {
    const found = picture.codec === CODEC_H264 ? h264CodecString(picture.data) : picture.codec === CODEC_AV1 ? av1CodecString(picture.data) : undefined;
    if (found === undefined) {
      this.#complain(picture.codec);
      return false;
    }
    this.#codec = picture.codec;
    try {
      if (!this.#decoder?.isOpen) this.#decoder = this.spare?.take(found, this.#owner) ?? new PictureDecoder(this.#owner);
      if (this.#decoder.configure(found, this.#exact)) this.#inside.clear();
      return true;
    } catch {
      this.#decoder = undefined;
      this.#complain(picture.codec);
      return false;
    }
  }

  /** After an error everything up to the next keyframe is lost. */
  #restart(): void {
    this.#errors++;
    this.#exact = true;
    this.#decoder?.close();
    this.#decoder = undefined;
    this.#inside.clear();
    if (this.#wantKeyframe) return;
    this.#wantKeyframe = true;
    this.#failures++;
    // Asking again would fail again, twice a second for as long as the call lasts.
    if (this.#failures < TrackDecoder.HOPELESS) this.events.needKeyframe();
    else this.#complain(this.#codec);
  }

  #complain(codec: number): void {
    if (!this.#complained) this.events.unsupported(codecName(codec));
    this.#complained = true;
  }

  #output(frame: VideoFrame): void {
    const now = epochNow();
    const arrived = this.#inside.get(frame.timestamp) ?? now;
    // What went in before it will not come out any more.
    for (const timestamp of this.#inside.keys()) if (timestamp <= frame.timestamp) this.#inside.delete(timestamp);
    this.#decoded++;
    this.#failures = 0;
    if (this.#complained) {
      this.#complained = false;
      this.events.supported();
    }
    this.#newestDecoded = frame.timestamp / 1000;
    this.#presenter.push({ timestamp: frame.timestamp / 1000, arrived, picture: frame }, now, this.#newestReceived - this.#newestDecoded);
    this.#present();
  }

  #present(): void {
    const now = epochNow();
    const { show, drop, wakeAt } = this.#presenter.next(now);
    for (const item of drop) item.picture.close();
    this.#dropped += drop.length;
    if (show) {
      this.#delay += (now - show.arrived - this.#delay) * 0.1;
      try {
        this.#draw(show.picture, now);
      } finally {
        show.picture.close();
      }
    }
    // One that comes too early asks again; in a replay each picture would have a new one.
    if (wakeAt === undefined || wakeAt >= this.#wakeAt) return;
    clearTimeout(this.#timer);
    this.#wakeAt = wakeAt;
    this.#timer = setTimeout(() => {
      this.#wakeAt = Infinity;
      this.#present();
    }, Math.max(0, wakeAt - now));
  }

  #draw(frame: VideoFrame, now: number): void {
    const { displayWidth: width, displayHeight: height } = frame;
    if (width !== this.#width || height !== this.#height) {
      this.#width = width;
      this.#height = height;
      this.events.size(width, height);
    }
    if (!this.#screen?.show(frame)) {
      this.#undrawn?.close();
      this.#undrawn = frame.clone();
      return;
    }
    // The first picture of a replay stands until the newest is there: that is no freeze.
    if (this.#presenter.isCatchingUp) this.#freezes.pause();
    else this.#freezes.onShown(now);
    if (this.#firstAt === 0) {
      this.#firstAt = now;
      this.events.first(now);
    }
    this.#drawnAt = now;
    this.#tellDrawn();
    if (!this.#live && !this.#presenter.isCatchingUp) {
      this.#live = true;
      this.events.live();
    }
  }
}
