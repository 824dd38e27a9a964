import type { TrackKind } from "../types.js";

/** The media message of the browser protocol, section 3: kind byte, source, WZP media header version 2, payload. */

export const MESSAGE_KIND_MEDIA = 1;
/** Several media messages, each with its length before it, in two bytes. */
export const MESSAGE_KIND_BUNDLE = 2;
export const PREFIX_BYTES = 5;
export const HEADER_BYTES = 16;
/** Where the payload begins in a message. */
export const PAYLOAD_OFFSET = PREFIX_BYTES + HEADER_BYTES;
export const WIRE_VERSION = 2;

const FLAG_FRAME_END = 0x10;
const FLAG_KEYFRAME = 0x20;

/** Codec ids of the wire. Opus 24k (0) is what every native client takes, whatever the rate really is. */
export const CODEC_OPUS = 0;
export const CODEC_H264 = 9;
export const CODEC_H265 = 11;
export const CODEC_AV1 = 12;

const CODEC_NAMES: ReadonlyMap<number, string> = new Map([
  [0, "opus"], [1, "opus"], [2, "opus"], [3, "codec2_3200"], [4, "codec2_1200"], [5, "comfort_noise"],
  [6, "opus"], [7, "opus"], [8, "opus"], [CODEC_H264, "h264"], [CODEC_H265, "h265"], [CODEC_AV1, "av1"],
]);

/** The protocol's name of a wire codec id; `unknown_<id>` for one that is not in the table. */
export function codecName(id: number): string {
  return CODEC_NAMES.get(id) ?? `unknown_${id}`;
}

/** One media message, parsed. */
export interface MediaMessage {
  /** The sender's participant id; 0 from client to server. */
  source: number;
  kind: TrackKind;
  codec: number;
  slot: number;
  layer: number;
  keyframe: boolean;
  frameEnd: boolean;
  /** Wraps at 2^32. */
  seq: number;
  /** ms, wraps at 2^32. */
  timestamp: number;
  fragmentIndex: number;
  /** 0 for audio, which is never cut. */
  fragmentCount: number;
  payload: Uint8Array;
}

/** Parses a binary message. `undefined`: another kind of message, or one that is malformed. The payload is a view, not a copy. */
export function parseMedia(buffer: ArrayBuffer): MediaMessage | undefined {
  if (buffer.byteLength < PAYLOAD_OFFSET) return undefined;
  const view = new DataView(buffer);
  if (view.getUint8(0) !== MESSAGE_KIND_MEDIA || view.getUint8(5) !== WIRE_VERSION) return undefined;
  const flags = view.getUint8(6);
  const mediaType = view.getUint8(7);
  if (mediaType > 1) return undefined;
  const stream = view.getUint8(9);
  const fragmentIndex = view.getUint8(19);
  const fragmentCount = view.getUint8(20);
  if (mediaType === 1 && (fragmentCount === 0 || fragmentIndex >= fragmentCount)) return undefined;
  return {
    source: view.getUint32(1),
    kind: mediaType === 0 ? "audio" : "video",
    codec: view.getUint8(8),
    slot: stream & 15,
    layer: stream >> 4,
    keyframe: (flags & FLAG_KEYFRAME) !== 0,
    frameEnd: (flags & FLAG_FRAME_END) !== 0,
    seq: view.getUint32(11),
    timestamp: view.getUint32(15),
    fragmentIndex,
    fragmentCount,
    payload: new Uint8Array(buffer, PAYLOAD_OFFSET),
  };
}

/** The messages of a bundle, each in a buffer of its own; any other message alone. What a bundle has not got whole is left out. */
export function unbundle(buffer: ArrayBuffer): ArrayBuffer[] {
  const view = new DataView(buffer);
  if (buffer.byteLength === 0 || view.getUint8(0) !== MESSAGE_KIND_BUNDLE) return [buffer];
  const messages: ArrayBuffer[] = [];
  for (let at = 1; at + 2 <= buffer.byteLength; ) {
    const end = at + 2 + view.getUint16(at);
    if (end > buffer.byteLength) break;
    messages.push(buffer.slice(at + 2, end));
    at = end;
  }
  return messages;
}

/** Whether a binary message is the last one of a picture. */
export function endsPicture(buffer: ArrayBuffer): boolean {
  if (buffer.byteLength < PAYLOAD_OFFSET) return false;
  const bytes = new Uint8Array(buffer, 0, PREFIX_BYTES + 3);
  return bytes[0] === MESSAGE_KIND_MEDIA && bytes[5] === WIRE_VERSION && bytes[7] === 1 && ((bytes[6] ?? 0) & FLAG_FRAME_END) !== 0;
}

/** Writes a message into a buffer of its own, ready to be sent. */
export function writeMedia(message: MediaMessage): ArrayBuffer {
  const buffer = new ArrayBuffer(PAYLOAD_OFFSET + message.payload.byteLength);
  const view = new DataView(buffer);
  view.setUint8(0, MESSAGE_KIND_MEDIA);
  view.setUint32(1, message.source);
  view.setUint8(5, WIRE_VERSION);
  view.setUint8(6, (message.keyframe ? FLAG_KEYFRAME : 0) | (message.frameEnd ? FLAG_FRAME_END : 0));
  view.setUint8(7, message.kind === "audio" ? 0 : 1);
  view.setUint8(8, message.codec);
  view.setUint8(9, (message.layer << 4) | message.slot);
  view.setUint32(11, message.seq >>> 0);
  view.setUint32(15, message.timestamp >>> 0);
  view.setUint8(19, message.fragmentIndex);
  view.setUint8(20, message.fragmentCount);
  new Uint8Array(buffer, PAYLOAD_OFFSET).set(message.payload);
  return buffer;
}
