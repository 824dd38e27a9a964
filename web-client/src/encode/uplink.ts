import type { SendWindow } from "../media/acknowledge.js";

interface Waiting {
  slot: number;
  data: ArrayBuffer;
  at: number;
}

/**
 * Decides what is sent and when: audio first, video in pieces that leave room for audio between them, and no video at all, up to the
 * next keyframe, while the other side is behind (section 4).
 */
export class Uplink {
  /** Audio that waits while even audio is blocked, messages; the oldest goes first. */
  static readonly AUDIO_QUEUE = 10;
  /** Video bytes on their way at one time: what the window starts with and its bounds. */
  static readonly WINDOW_START = 65_536;
  static readonly WINDOW_MIN = 24_576;
  static readonly WINDOW_MAX = 1_048_576;
  /** An asked keyframe has so long to come before it is asked for again, ms. */
  static readonly ASK_PAUSE_MS = 500;

  /** Video frames left out so far. */
  skippedFrames = 0;
  /** Audio messages thrown away so far. */
  droppedAudio = 0;
  #audio: ArrayBuffer[] = [];
  #video: Waiting[] = [];
  /** Slots that go on at a keyframe, and when it was last asked for. */
  readonly #needKeyframe = new Map<number, number>();
  #byteWindow = Uplink.WINDOW_START;
  #limited = false;

  constructor(
    readonly send: (data: ArrayBuffer) => boolean,
    readonly window: () => SendWindow,
    readonly now: () => number,
    /** The way is open again, or pieces were dropped: this slot's next frame has to be a keyframe. */
    readonly requestKeyframe: (slot: number) => void,
  ) {}

  /** Whether a video frame encoded now could be sent. Asked before encoding, so that nothing is encoded in vain. */
  get isVideoOpen(): boolean {
    const now = this.now();
    const oldest = this.#video[0];
    return !this.window().videoBlocked(now) && (oldest === undefined || now - oldest.at <= 100);
  }

  sendAudio(messages: readonly ArrayBuffer[]): void {
    this.#audio.push(...messages);
    this.pump();
  }

  /** @returns whether the frame was taken; if not, the slot goes on at its next keyframe. */
  sendVideo(slot: number, messages: readonly ArrayBuffer[], keyframe: boolean): boolean {
    const now = this.now();
    this.#dropStale(now);
    const open = messages.length > 0 && !this.window().videoBlocked(now);
    if (!open || (this.#needKeyframe.has(slot) && !keyframe)) {
      this.skippedFrames++;
      if (!this.#needKeyframe.has(slot)) this.#needKeyframe.set(slot, -Infinity);
      this.#ask(now);
      return false;
    }
    this.#needKeyframe.delete(slot);
    for (const data of messages) this.#video.push({ slot, data, at: now });
    this.pump();
    return true;
  }

  /** An acknowledgement came. */
  onAck(): void {
    const now = this.now();
    const queueing = this.window().lastDelay - this.window().baseDelay(now);
    if (queueing > 150) this.#byteWindow = Math.max(Uplink.WINDOW_MIN, this.#byteWindow * 0.85);
    else if (this.#limited) this.#byteWindow = Math.min(Uplink.WINDOW_MAX, this.#byteWindow + 16_384);
    this.#limited = false;
    this.pump();
    this.#ask(now);
  }

  /** A new connection: nothing waits, every slot begins with a keyframe. */
  reset(slots: Iterable<number>): void {
    this.#audio = [];
    this.#video = [];
    this.#needKeyframe.clear();
    for (const slot of slots) this.#needKeyframe.set(slot, -Infinity);
    this.#byteWindow = Uplink.WINDOW_START;
  }

  /** Sends what may be sent now. */
  pump(): void {
    const now = this.now();
    if (this.window().audioBlocked(now)) {
      const excess = this.#audio.length - Uplink.AUDIO_QUEUE;
      if (excess > 0) {
        this.#audio.splice(0, excess);
        this.droppedAudio += excess;
      }
    } else {
      for (const data of this.#audio) this.send(data);
      this.#audio = [];
    }
    this.#dropStale(now);
    let sent = 0;
    for (const piece of this.#video) {
      if (this.window().bytesInFlight >= this.#byteWindow) {
        this.#limited = true;
        break;
      }
      this.send(piece.data);
      sent++;
    }
    if (sent > 0) this.#video.splice(0, sent);
  }

  /** Asks for the keyframes that are needed; while the way is blocked there is no point in it. */
  #ask(now: number): void {
    if (this.window().videoBlocked(now)) return;
    for (const [slot, askedAt] of this.#needKeyframe) {
      if (now - askedAt < Uplink.ASK_PAUSE_MS) continue;
      this.#needKeyframe.set(slot, now);
      this.requestKeyframe(slot);
    }
  }

  #dropStale(now: number): void {
    const oldest = this.#video[0];
    if (!oldest || (!this.window().videoBlocked(now) && now - oldest.at <= 250)) return;
    for (const { slot } of this.#video) this.#needKeyframe.set(slot, -Infinity);
    this.skippedFrames++;
    this.#video = [];
  }
}
