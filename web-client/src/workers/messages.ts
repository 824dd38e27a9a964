import type { ClientMessage, Joined, ServerMessage, ShownTrack, TrackRef } from "../control/messages.js";
import type { EncodedPicture } from "../decode/track-decoder.js";
import type { Publication, SendStats, TrackKind, TrackSource } from "../types.js";

/** What the page, the session worker, the video worker and the playout worklet tell one another. Times are {@link epochNow} unless said. */

/** ms since 1970 by a clock that never jumps, the same in all threads of a page (`performance.now()` alone begins anew in each). */
export function epochNow(): number {
  return performance.timeOrigin + performance.now();
}

/** Names a received track: participant, kind and slot. */
export type TrackKey = `${number}:${"audio" | "video"}:${number}`;

export function trackKey(track: TrackRef): TrackKey {
  return `${track.source}:${track.kind}:${track.slot}`;
}

/** How captured media reaches the session worker; see `capture/`. */
export type CaptureFeed =
  | { road: "stream"; readable: ReadableStream<VideoFrame | AudioData> }
  /** A clone of the page's track; `switches` tells what the page does with its own. */
  | { road: "track"; track: MediaStreamTrack; switches: MessagePort }
  | { road: "port"; port: MessagePort };

/** On a `switches` port: the page's track was disabled, enabled, or is over. */
export type TrackSwitch = "off" | "on" | "ended";

/** On a capture port: sound of one channel, or a picture. Both are given away. */
export type CapturedMedia = { samples: Float32Array; sampleRate: number } | { frame: VideoFrame };

/** A publication as the session worker needs it. */
export interface PublicationSpec {
  publication: number;
  kind: TrackKind;
  source: TrackSource;
  slot: number;
  maxBitrate: number;
  fps: number;
  width?: number | undefined;
  height?: number | undefined;
}

export type ToSession =
  /** A room at this address may be joined soon. */
  | { type: "prepare"; url: string }
  | { type: "start"; url: string; name: string; id: string; token?: string | undefined; videoPort: MessagePort }
  | { type: "playout"; port: MessagePort }
  | { type: "playout-latency"; ms: number }
  /** Voices that WebRTC carries, of whom it does not carry the picture. */
  | { type: "held"; sounds: HeldSound[] }
  | { type: "publish"; spec: PublicationSpec }
  /** Feeds a publication from now on, in place of an earlier feed. */
  | { type: "feed"; publication: number; feed: CaptureFeed }
  /** WebRTC carries this publication from now on (`codec` as negotiated), or does so no more (`undefined`). */
  | { type: "carried"; publication: number; codec: string | undefined }
  | { type: "mute"; publication: number; on: boolean }
  | { type: "unpublish"; publication: number }
  | { type: "pause"; tracks: TrackRef[] }
  | { type: "view"; tracks: ShownTrack[] }
  | { type: "control"; message: ClientMessage }
  | { type: "network" }
  /** `played`: sound of WebRTC to be measured too. */
  | { type: "stats"; request: number; sound: boolean; played: PlayedSound[] }
  | { type: "leave"; reason: string | undefined };

/** How long after it arrives by WebRTC a participant's voice is heard, ms. */
export interface HeldSound {
  participant: number;
  ms: number;
}

/** What an m-line of WebRTC played just now. */
export interface PlayedSound {
  mid: string;
  samples: Float32Array<ArrayBuffer>;
  sampleRate: number;
}

/** What was measured of it: linear RMS, and the strongest frequency, Hz. */
export interface MeasuredSound {
  mid: string;
  audioLevel: number;
  dominantHz: number;
}

/** Figures of one track received over the WebSocket. */
export interface ReceivedStats {
  key: TrackKey;
  codec: string;
  packets: number;
  lost: number;
  bitrate: number;
  framesDecoded: number;
  framesDropped: number;
  decodeErrors: number;
  width: number;
  height: number;
  /** 0: nothing shown or played yet. */
  firstFrameAt: number;
  freezeMs: number;
  freezeCount: number;
  delayMs: number;
  audioLevel: number;
  dominantHz: number;
}

export type FromSession =
  | { type: "joined"; message: Joined; at: number }
  | { type: "reconnecting" }
  | { type: "message"; message: ServerMessage }
  | { type: "closed"; error: { code: string; message: string } | undefined }
  | { type: "publication"; publication: number; state: Publication["state"]; codec: string; failure?: string | undefined; limitReason?: string | undefined }
  /** The worker can be given tracks, but cannot read them. */
  | { type: "unreadable"; publication: number }
  | { type: "notice"; code: string; message: string }
  /** The codec that this browser encodes video promptly with. */
  | { type: "video-codec"; codec: string }
  /** Linear RMS over the last 100 ms: of the microphone, and of what was played of each source. */
  | { type: "local-level"; level: number }
  | { type: "levels"; levels: [participant: number, level: number][] }
  | { type: "stats"; request: number; rttMs: number; received: ReceivedStats[]; sending: SendStats[]; measured: MeasuredSound[] };

/** An encoded picture on its way to its track's decoder. */
export interface PictureOf extends EncodedPicture {
  key: TrackKey;
}

/** From session worker to video worker. */
export type SessionToVideo =
  | { type: "pictures"; pictures: PictureOf[] }
  | { type: "remove"; key: TrackKey }
  /** Room clock: `timestamp` is now (`at`). */
  | { type: "clock"; timestamp: number; at: number }
  /** A source's sound: timestamp `timestamp` is heard at `at`. `elsewhere`: it comes by WebRTC. */
  | { type: "heard"; participant: number; timestamp: number; at: number; elsewhere: boolean }
  | { type: "stats"; request: number };

export interface VideoTrackStats {
  key: TrackKey;
  framesDecoded: number;
  framesDropped: number;
  decodeErrors: number;
  width: number;
  height: number;
  firstFrameAt: number;
  freezeMs: number;
  freezeCount: number;
  delayMs: number;
}

export type VideoToSession =
  | { type: "keyframe"; key: TrackKey }
  | { type: "backlog"; ms: number }
  | { type: "stats"; request: number; tracks: VideoTrackStats[] };

/** From page to video worker. */
export type PageToVideo =
  | { type: "session"; port: MessagePort }
  | { type: "canvas"; key: TrackKey; canvas: OffscreenCanvas }
  /** Its pictures are to go there, too … */
  | { type: "stream"; key: TrackKey; stream: WritableStream<VideoFrame> }
  /** … and now only there. */
  | { type: "streamed"; key: TrackKey }
  /** Say when a picture is drawn that is no replay, if none was just now; or when no more of it comes. */
  | { type: "tell"; key: TrackKey }
  | { type: "release"; key: TrackKey }
  /** The complete list of those whose voice is heard by WebRTC. */
  | { type: "voices"; participants: number[] };

export type VideoToPage =
  | { type: "size"; key: TrackKey; width: number; height: number }
  | { type: "first"; key: TrackKey; at: number }
  /** After `tell`: a picture is drawn. */
  | { type: "drawn"; key: TrackKey; width: number; height: number }
  /** Its pictures have caught up with what is live. */
  | { type: "live"; key: TrackKey }
  /** Its pictures cannot be decoded here … */
  | { type: "unsupported"; key: TrackKey; codec: string }
  /** … and now they can, after all. */
  | { type: "supported"; key: TrackKey };

/** From session worker to playout worklet; `source` is participant and slot in one number. */
export type ToPlayout =
  | { type: "pcm"; source: number; timestamp: number; left: Float32Array; right?: Float32Array | undefined }
  | { type: "end"; source: number }
  | { type: "stats"; request: number; sound: boolean };

export interface PlayoutStats {
  source: number;
  delayMs: number;
  concealedMs: number;
  concealments: number;
  level: number;
  /** Everything played in the last second, at the context's rate. */
  played: Float32Array;
}

export type FromPlayout =
  /** Every 100 ms: RMS over that time, and the timestamp that was played just now (NaN: nothing). Three numbers per source: id, level, timestamp. */
  | { type: "levels"; values: Float64Array }
  | { type: "started"; source: number }
  | { type: "stats"; request: number; sampleRate: number; sources: PlayoutStats[] };

/** Slots are below 16, so participant and slot fit into one number. */
export function playoutSource(participant: number, slot: number): number {
  return participant * 16 + slot;
}
