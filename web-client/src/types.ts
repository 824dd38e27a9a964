import type { Unsubscribe } from "./events.js";
import type { RoomError } from "./error.js";

/** The transport family that a participant came through. */
export type Door = "native" | "websocket" | "webrtc" | "whip" | "rtmp" | "uplink";
/** What a track carries. */
export type TrackKind = "audio" | "video";
/** Where a track comes from. */
export type TrackSource = "microphone" | "camera" | "screen";
/** How media travels between this page and the gateway. */
export type MediaTransport = "webrtc" | "websocket";
/**
 * Where a room's connection stands: `connecting` until `connect` resolves, `connected`, `reconnecting` while the library tries to come back (for
 * about 80 s), `closed` for good; `closeReason` tells why.
 */
export type RoomState = "connecting" | "connected" | "reconnecting" | "closed";
/** Why a remote track is not shown at the moment; `codec`: this browser cannot decode it. */
export type PausedReason = "bandwidth" | "codec" | "hidden" | "unsubscribed";
/** Where the room's uplink to another relay stands. */
export type UplinkState = "connecting" | "connected" | "away" | "refused" | "stalled" | "unreadable";

/** The room's uplink: the gateway joins the room of the same name on another relay, whose members are then participants here. */
export interface Uplink {
  /** The relay's address. */
  relay: string;
  state: UplinkState;
  /** The same for people. */
  message: string;
}

/**
 * Why a participant left: by its own will, because its connection was lost, because the same identity joined anew, or put out by the gateway.
 */
export type LeaveReason = "left" | "lost" | "replaced" | "removed";

/** How to join; see {@link connect}. */
export interface ConnectOptions {
  /** The name that others see, at most 64 characters. */
  alias: string;
  /**
   * This browser's random secret, 16–64 of `[A-Za-z0-9_-]`; its fingerprint is the identity that others see.
   * Default: made once and kept in local storage under `wzp.id`. Two tabs with one id replace each other.
   */
  id?: string;
  /** The access token, for gateways that ask for one. */
  token?: string;
  /** How media travels. `auto`, the default: by the WebSocket at once, and by WebRTC as soon as that is connected, if it is within 15 s. */
  transport?: "auto" | MediaTransport;
  /** Aborts the attempt to join. */
  signal?: AbortSignal;
  /** A context to play through. Default: the library makes one of 48 kHz, and closes it at the end. */
  audioContext?: AudioContext;
}

/** What {@link Room.publish} takes. */
export interface PublishOptions {
  /** Default: `microphone` for audio; for video `screen` if the track captures a display, else `camera`. */
  source?: TrackSource;
  /** Upper bound, bit/s. Default 1,200,000 for video and 32,000 for audio. */
  maxBitrate?: number;
  /** Upper bound of the picture rate, frames per second. Default 30, screens 15. */
  fps?: number;
}

/** One member of the room, the local one included. */
export interface Participant {
  /** Positive, never used twice in the life of a room. */
  readonly id: number;
  /** The name that it goes by, its own choice; two participants may have the same. */
  readonly alias: string;
  /** The identity that stays the same from call to call. */
  readonly fingerprint: string;
  readonly door: Door;
  /** `reconnecting`: its connection broke, and it has a few seconds to come back. */
  readonly state: "connected" | "reconnecting";
  /** What it has switched off, or does not send, by its own word. */
  readonly muted: { readonly audio: boolean; readonly video: boolean };
  readonly isLocal: boolean;
  /** What we receive from it; empty for the local participant. */
  readonly tracks: readonly RemoteTrack[];
  /** Linear RMS, 0–1, of what was really played; of the microphone for the local participant. */
  readonly audioLevel: number;
  /** Whether it is talking now. */
  readonly speaking: boolean;
}

/** The local participant. */
export interface LocalParticipant extends Participant {
  readonly publications: readonly Publication[];
}

/** The events of a {@link RemoteTrack} and the arguments of their listeners. */
export interface RemoteTrackEvents {
  /** The element was made or replaced. */
  element: [HTMLElement];
  /** The decoded size changed, pixels. */
  resize: [width: number, height: number];
  /** The gateway stopped (a reason) or took up again (`undefined`) sending the track. */
  paused: [reason: PausedReason | undefined];
  /** The first picture is on the element. */
  firstframe: [];
}

/** A track that another participant sends. */
export interface RemoteTrack {
  readonly kind: TrackKind;
  readonly source: TrackSource;
  /** Tells tracks of one kind and participant apart, 0–15. */
  readonly slot: number;
  readonly codec: string;
  /** Pixels, once known. */
  readonly width?: number | undefined;
  /** Pixels, once known. */
  readonly height?: number | undefined;
  readonly participantId: number;
  /** Video: a `<canvas>` or a `<video>`, sized as decoded, to be put into the page; empty until `firstframe`; the event `element` tells when there is another one. Audio: `null`, it plays by itself. */
  readonly element: HTMLElement | null;
  readonly pausedReason?: PausedReason | undefined;
  /** Whether the track is wanted at all; every track is at first. */
  readonly subscribed: boolean;
  /**
   * Wants the track again after {@link RemoteTrack.unsubscribe}: the gateway sends it from its last keyframe on.
   */
  subscribe(): void;
  /**
   * Wants the track no more: the gateway sends nothing of it, sound or picture, until {@link RemoteTrack.subscribe}. It stays among the
   * participant's tracks; its element shows an old picture or none meanwhile, and may be replaced, so hide it.
   */
  unsubscribe(): void;
  /** `false` asks the gateway not to send the track until it is visible again; for pictures that are scrolled away or in a tab behind. */
  setVisible(visible: boolean): void;
  /**
   * Tells how large a picture is shown, in device pixels, as often as you like; 0 by 0, as at first, is full size. A camera that everybody
   * shows small sends small pictures, which costs all of them less; screens come in full size always.
   */
  setShownSize(width: number, height: number): void;
  on<K extends keyof RemoteTrackEvents>(type: K, listener: (...args: RemoteTrackEvents[K]) => void): Unsubscribe;
  once<K extends keyof RemoteTrackEvents>(type: K, listener: (...args: RemoteTrackEvents[K]) => void): Unsubscribe;
  off<K extends keyof RemoteTrackEvents>(type: K, listener: (...args: RemoteTrackEvents[K]) => void): void;
}

/** A local track that is being sent. Its changes are told by `participantchanged` with the local participant. */
export interface Publication {
  readonly kind: TrackKind;
  readonly source: TrackSource;
  readonly slot: number;
  /** `opus`, `h264` or `av1`; empty while starting. */
  readonly codec: string;
  readonly track: MediaStreamTrack;
  readonly muted: boolean;
  readonly state: "starting" | "sending" | "muted" | "failed";
  /** Why `state` is `failed`: an encoder or a capture that gives nothing, or a track that has ended. Another track and unmuting are a new try; the library tries by itself, too, after 5 s and then less and less often. */
  readonly failure?: string | undefined;
  /** Why less is sent than asked for: `bandwidth`, `viewers`, `frame_too_large`, `server`, `cpu`. */
  readonly limitReason?: string | undefined;
  /** Stops (`true`) or goes on with sending; the others are told. The device stays open. */
  mute(on: boolean): Promise<void>;
  /** Goes on with another device, as the same track for the others. */
  replaceTrack(track: MediaStreamTrack): Promise<void>;
  /** Ends the publication. The track itself is not stopped. */
  stop(): Promise<void>;
}

/** What {@link Room.stats} takes. */
export interface StatsOptions {
  /**
   * `false` leaves `dominantHz`, and by WebRTC `audioLevel`, at 0: they take most of the work, which whoever asks every second may want to
   * save. Default `true`.
   */
  sound?: boolean;
}

/** What `Room.stats()` resolves to. Times in ms, rates in bit/s. */
export interface RoomStats {
  transport: MediaTransport;
  /** Why this transport is used. */
  transportReason: string;
  /** From the call of `connect` to the answer `joined`. */
  joinMs: number;
  /** Round trip between page and gateway. */
  rttMs: number;
  /** One entry per received track. */
  sources: SourceStats[];
  /** One entry per sent track. */
  sending: SendStats[];
}

/** Figures of one received track. */
export interface SourceStats {
  /** The participant's id. */
  id: number;
  /** The participant's alias. */
  alias: string;
  kind: TrackKind;
  slot: number;
  codec: string;
  /** Media messages (WebSocket) or RTP packets (WebRTC) received. */
  packets: number;
  /** Of those, how many are missing. */
  lost: number;
  /** Over the last second, bit/s. */
  bitrate: number;
  framesDecoded: number;
  framesDropped: number;
  /** Times that a decoder refused what it was given. WebRTC does not tell. */
  decodeErrors: number;
  width: number;
  height: number;
  /** From the join to the first picture shown or sound played; 0 while there was none. */
  firstFrameMs: number;
  /** Total time by which pictures stood still, or sound was concealed. */
  freezeMs: number;
  freezeCount: number;
  /** Audio: depth of the jitter buffer. Video: delay from arrival to display. */
  delayMs: number;
  /** Linear RMS, 0–1, over the last second of what was really played. */
  audioLevel: number;
  /** The strongest frequency over the last second of what was really played, Hz; 0 if silent. */
  dominantHz: number;
}

/** Figures of one sent track. */
export interface SendStats {
  kind: TrackKind;
  source: TrackSource;
  slot: number;
  codec: string;
  /** Over the last second, bit/s. */
  bitrate: number;
  /** Pictures (or packets) per second over the last second. */
  fps: number;
  width: number;
  height: number;
  /** Frames left out, because of the encoder or the connection. */
  skipped: number;
  keyframes: number;
  limitReason?: string | undefined;
}

/** The events of a {@link Room} and the arguments of their listeners. */
export interface RoomEvents {
  /** See {@link RoomState}. A room that is closed removes no participants and tracks one by one. */
  state: [RoomState];
  participantjoined: [Participant];
  /** Anything about a participant changed; changes within 50 ms are one event. */
  participantchanged: [Participant];
  participantleft: [Participant, LeaveReason];
  trackadded: [RemoteTrack, Participant];
  trackremoved: [RemoteTrack, Participant];
  /** Ids of who is talking, yours too, loudest first. */
  speakers: [number[]];
  /** `true`: the browser does not let us play until somebody taps; call `room.audio.resume()` then. */
  audioblocked: [boolean];
  /** Something a person may want to know; nothing ends. */
  notice: [{ code: string; message: string }];
  /** Something that was asked for did not work, and the room goes on; what ends it is `room.closeReason` at the state `closed`. */
  error: [RoomError];
  /** How the room stands with another relay has changed. */
  uplink: [Uplink];
  /** The media transport was chosen or changed. */
  transport: [{ media: MediaTransport; reason: string }];
}

/** Playing of all the others' sound. */
export interface RoomAudio {
  /** The browser waits for a gesture of the person before it plays. */
  readonly blocked: boolean;
  /** Starts playing; call it from a click or key handler. */
  resume(): Promise<void>;
  /** Chooses the output device. @throws RoomError `unsupported_browser` */
  setSink(deviceId: string): Promise<void>;
  /** Linear, 0 to 1. */
  setVolume(volume: number): void;
}
