import type { TrackKind } from "../types.js";
import { writeMedia, type MediaMessage } from "./header.js";

/** Largest piece of a video frame in one message, bytes (section 3). */
export const FRAGMENT_BYTES = 8192;
const MAX_FRAGMENTS = 255;

/** Cuts one track's frames into messages and numbers them. */
export class Fragmenter {
  #seq: number;
  #lastTimestamp: number | undefined;

  constructor(
    readonly kind: TrackKind,
    readonly slot: number,
    firstSeq = 0,
  ) {
    this.#seq = firstSeq >>> 0;
  }

  /**
   * The messages of one frame, in order. Sequence numbers are used up here, so that messages which are dropped afterwards show as a gap.
   * A timestamp that does not increase is pushed 1 ms beyond its predecessor, as the protocol wants.
   * @param timestampMs the client's media clock
   * @returns no messages if the frame is too large to be cut into 255 pieces
   */
  cut(payload: Uint8Array, timestampMs: number, codec: number, keyframe: boolean): ArrayBuffer[] {
    const count = this.kind === "audio" ? 1 : Math.max(1, Math.ceil(payload.byteLength / FRAGMENT_BYTES));
    if (count > MAX_FRAGMENTS) return [];
    const timestamp = this.#increasing(Math.round(timestampMs));
    const messages: ArrayBuffer[] = [];
    for (let index = 0; index < count; index++) {
      const video = this.kind === "video";
      messages.push(
        writeMedia({
          source: 0, kind: this.kind, codec, slot: this.slot, layer: 0,
          keyframe: video && keyframe, frameEnd: video && index === count - 1,
          seq: this.#seq, timestamp,
          fragmentIndex: video ? index : 0, fragmentCount: video ? count : 0,
          payload: video ? payload.subarray(index * FRAGMENT_BYTES, (index + 1) * FRAGMENT_BYTES) : payload,
        }),
      );
      this.#seq = (this.#seq + 1) >>> 0;
    }
    return messages;
  }

  #increasing(timestamp: number): number {
    if (this.#lastTimestamp !== undefined && timestamp <= this.#lastTimestamp) timestamp = this.#lastTimestamp + 1;
    this.#lastTimestamp = timestamp;
    return timestamp;
  }
}

/** A whole frame, put together again. */
export interface ReceivedFrame {
  payload: Uint8Array;
  /** ms, wraps at 2^32. */
  timestamp: number;
  codec: number;
  keyframe: boolean;
  /** Messages that are missing before this frame. */
  lostBefore: number;
}

/** Puts one track's frames together, and holds back what cannot be decoded: after a loss, everything up to the next keyframe. */
export class Reassembler {
  /** Messages missing so far, by sequence number. */
  lost = 0;
  /** Frames thrown away because something before or inside them is missing. */
  framesDropped = 0;
  #nextSeq: number | undefined;
  #waitForKeyframe: boolean;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #lostBefore = 0;
  #open: MediaMessage | undefined;

  constructor(
    readonly kind: TrackKind,
    readonly maxFrameBytes = 1_048_576,
  ) {
    this.#waitForKeyframe = kind === "video";
  }

  /** Whether deltas are being thrown away until a keyframe comes. */
  get waitingForKeyframe(): boolean {
    return this.#waitForKeyframe;
  }

  /** Whether a keyframe must be asked for: none is here, and none is on its way. */
  get needsKeyframe(): boolean {
    return this.#waitForKeyframe && this.#open?.keyframe !== true;
  }

  /** Forgets references, as after a decoder error: the next frame passed on is a keyframe. */
  requireKeyframe(): void {
    this.#waitForKeyframe = true;
    this.#discard();
  }

  /** A new connection: numbers may begin anew, so what is missing between the two cannot be counted. */
  restart(): void {
    this.#nextSeq = undefined;
    if (this.kind === "video") this.requireKeyframe();
  }

  /** Takes the next message; gives the frame that it completes, if any. */
  push(message: MediaMessage): ReceivedFrame | undefined {
    const gap = this.#nextSeq === undefined ? 0 : (message.seq - this.#nextSeq) >>> 0;
    this.#nextSeq = (message.seq + 1) >>> 0;
    // The transport keeps order, so a huge forward distance is a sender that counts anew: a break, but not a countable loss.
    if (gap > 0) {
      if (gap < 0x10000) {
        this.lost += gap;
        this.#lostBefore += gap;
      }
      this.#lose();
    }
    if (this.kind === "audio") {
      return this.#emit(message, message.payload);
    }
    if (message.fragmentIndex === 0) {
      if (this.#open) this.#lose();
      this.#open = message;
    } else if (!this.#open || message.fragmentIndex !== this.#pieces.length || message.timestamp !== this.#open.timestamp) {
      this.#lose();
      return undefined;
    }
    this.#pieces.push(message.payload);
    this.#bytes += message.payload.byteLength;
    if (this.#bytes > this.maxFrameBytes) {
      this.#lose();
      return undefined;
    }
    if (message.fragmentIndex + 1 < message.fragmentCount) return undefined;
    return this.#complete(this.#open);
  }

  #complete(first: MediaMessage): ReceivedFrame | undefined {
    const payload = this.#pieces.length === 1 && this.#pieces[0] ? this.#pieces[0] : join(this.#pieces, this.#bytes);
    this.#discard();
    if (this.#waitForKeyframe && !first.keyframe) {
      this.framesDropped++;
      return undefined;
    }
    this.#waitForKeyframe = false;
    return this.#emit(first, payload);
  }

  #emit(message: MediaMessage, payload: Uint8Array): ReceivedFrame {
    const lostBefore = this.#lostBefore;
    this.#lostBefore = 0;
    return { payload, timestamp: message.timestamp, codec: message.codec, keyframe: message.keyframe, lostBefore };
  }

  #lose(): void {
    if (this.kind === "audio") return;
    if (this.#open) this.framesDropped++;
    this.#waitForKeyframe = true;
    this.#discard();
  }

  #discard(): void {
    this.#pieces = [];
    this.#bytes = 0;
    this.#open = undefined;
  }
}

function join(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.byteLength;
  }
  return whole;
}
