import type { Door, LeaveReason, MediaTransport, TrackKind, TrackSource, UplinkState } from "../types.js";
import { flag, list, number, object, oneOf, text, type Json } from "./fields.js";

/** The control messages of the browser protocol, section 2. */

export const PROTOCOL_VERSION = 2;
export const SUBPROTOCOL = "wzp.v2";

const KINDS = ["audio", "video"] as const;
const SOURCES = ["microphone", "camera", "screen"] as const;
const DOORS = ["native", "websocket", "webrtc", "whip", "rtmp", "uplink"] as const;
const UPLINK_STATES = ["connecting", "connected", "away", "refused", "stalled", "unreadable"] as const;
const LEAVE_REASONS = ["left", "lost", "replaced", "removed"] as const;

/** A track as the control channel describes it. */
export interface TrackInfo {
  kind: TrackKind;
  source: TrackSource;
  slot: number;
  codec: string;
  width?: number | undefined;
  height?: number | undefined;
}

/** A member as the control channel describes it. */
export interface MemberInfo {
  id: number;
  name: string;
  fingerprint: string;
  door: Door;
  state: "connected" | "reconnecting";
  muted: { audio: boolean; video: boolean };
  tracks: TrackInfo[];
}

/** Names one track of another participant. */
export interface TrackRef {
  source: number;
  kind: TrackKind;
  slot: number;
}

/** A video track of another participant, and what is needed of its shorter side, px. */
export interface ShownTrack {
  source: number;
  slot: number;
  side: number;
}

export interface Limits {
  max_video_bitrate: number;
  max_frame_bytes: number;
  ack_ms: number;
  resume_ms: number;
}

/** Which receiving m-line carries what; `source` null: nothing. */
export interface MidInfo {
  mid: string;
  source: number | null;
  kind: TrackKind;
  slot: number;
}

/** A STUN or TURN server, as `RTCPeerConnection` takes it. */
export interface IceServer {
  urls: string;
  username?: string;
  credential?: string;
}

export interface Joined {
  type: "joined";
  participant: number;
  room: string;
  fingerprint: string;
  resume: string;
  resumed: boolean;
  time_ms: number;
  members: MemberInfo[];
  limits: Limits;
  webrtc: boolean;
  ice_servers: IceServer[];
}

export type ServerMessage =
  | { type: "hello"; version: number; server: string; auth_required: boolean }
  | { type: "auth_ok" }
  | Joined
  | { type: "member_joined" | "member_changed"; member: MemberInfo }
  | { type: "member_left"; id: number; reason: LeaveReason }
  | { type: "keyframe"; slot: number }
  | { type: "limit"; slot: number; max_bitrate: number; max_side: number | undefined; reason: string }
  | { type: "video_paused" | "video_resumed"; source: number; slot: number; reason: "bandwidth" | "codec" }
  | { type: "speakers"; ids: number[] }
  | { type: "answer"; sdp: string }
  | { type: "mids"; mids: MidInfo[] }
  | { type: "need_mids"; audio: number; video: number }
  | { type: "ack"; media: number }
  | { type: "ping" | "pong"; t: number }
  | { type: "uplink"; relay: string; state: UplinkState; message: string }
  | { type: "notice"; code: string; message: string }
  | { type: "error"; code: string; message: string; fatal: boolean }
  | { type: "bye"; reason: string };

export type ClientMessage =
  | { type: "hello"; versions: number[]; client: string }
  | { type: "auth"; token: string }
  | { type: "join"; name: string; id: string; resume?: string; decode?: string[]; transport?: MediaTransport; bundles?: boolean }
  | { type: "publish"; tracks: TrackInfo[] }
  | { type: "mute"; audio: boolean; video: boolean }
  | { type: "pause"; tracks: TrackRef[] }
  | { type: "view"; tracks: ShownTrack[] }
  | { type: "keyframe"; source: number; slot: number }
  | { type: "ack"; media: number; backlog_ms?: number }
  | { type: "offer"; sdp: string; send: { mid: string; kind: TrackKind; slot: number }[] }
  | { type: "candidate"; candidate: string }
  | { type: "transport"; media: MediaTransport }
  | { type: "ping" | "pong"; t: number }
  | { type: "bye"; reason?: string };

/** Parses a text message. `undefined`: a type that we do not know, or one whose needed fields are missing; both are ignored by the protocol's rule. */
export function parseServerMessage(data: string): ServerMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return undefined;
  }
  const json = object(value);
  return json && read(json);
}

function read(json: Json): ServerMessage | undefined {
  switch (json.type) {
    case "hello":
      return { type: "hello", version: number(json.version) ?? 0, server: text(json.server) ?? "", auth_required: flag(json.auth_required) };
    case "auth_ok":
      return { type: "auth_ok" };
    case "joined":
      return joined(json);
    case "member_joined":
    case "member_changed": {
      const found = member(json.member);
      return found && { type: json.type, member: found };
    }
    case "member_left": {
      const id = number(json.id);
      return id === undefined ? undefined : { type: "member_left", id, reason: oneOf(json.reason, LEAVE_REASONS) ?? "left" };
    }
    case "keyframe":
      return { type: "keyframe", slot: number(json.slot) ?? 0 };
    case "limit": {
      const bitrate = number(json.max_bitrate);
      if (bitrate === undefined) return undefined;
      return { type: "limit", slot: number(json.slot) ?? 0, max_bitrate: bitrate, max_side: number(json.max_side), reason: text(json.reason) ?? "server" };
    }
    case "video_paused":
    case "video_resumed": {
      const source = number(json.source);
      const reason = oneOf(json.reason, ["bandwidth", "codec"] as const) ?? "bandwidth";
      return source === undefined ? undefined : { type: json.type, source, slot: number(json.slot) ?? 0, reason };
    }
    case "speakers":
      return { type: "speakers", ids: list(json.ids, number) };
    case "answer": {
      const sdp = text(json.sdp);
      return sdp === undefined ? undefined : { type: "answer", sdp };
    }
    case "mids":
      return { type: "mids", mids: list(json.mids, mid) };
    case "need_mids":
      return { type: "need_mids", audio: number(json.audio) ?? 0, video: number(json.video) ?? 0 };
    case "ack": {
      const media = number(json.media);
      return media === undefined ? undefined : { type: "ack", media };
    }
    case "ping":
    case "pong": {
      const t = number(json.t);
      return t === undefined ? undefined : { type: json.type, t };
    }
    case "uplink": {
      // A state that is newer than this page says that something is not as it should be.
      const state = oneOf(json.state, UPLINK_STATES) ?? "away";
      return { type: "uplink", relay: text(json.relay) ?? "", state, message: text(json.message) ?? "" };
    }
    case "notice":
      return { type: "notice", code: text(json.code) ?? "notice", message: text(json.message) ?? "" };
    case "error":
      return { type: "error", code: text(json.code) ?? "error", message: text(json.message) ?? "", fatal: flag(json.fatal) };
    case "bye":
      return { type: "bye", reason: text(json.reason) ?? "" };
    default:
      return undefined;
  }
}

function joined(json: Json): Joined | undefined {
  const participant = number(json.participant);
  const resume = text(json.resume);
  if (participant === undefined || resume === undefined) return undefined;
  const limits = object(json.limits) ?? {};
  return {
    type: "joined",
    participant,
    room: text(json.room) ?? "",
    fingerprint: text(json.fingerprint) ?? "",
    resume,
    resumed: flag(json.resumed),
    time_ms: number(json.time_ms) ?? 0,
    members: list(json.members, member),
    limits: {
      max_video_bitrate: number(limits.max_video_bitrate) ?? 2_500_000,
      max_frame_bytes: number(limits.max_frame_bytes) ?? 1_048_576,
      ack_ms: number(limits.ack_ms) ?? 50,
      resume_ms: number(limits.resume_ms) ?? 10_000,
    },
    webrtc: flag(json.webrtc),
    ice_servers: list(json.ice_servers, iceServer),
  };
}

function iceServer(value: unknown): IceServer | undefined {
  const json = object(value);
  const urls = text(json?.urls);
  // A browser makes no connection at all if it is given something else.
  if (!json || urls === undefined || !/^(stuns?|turns?):/.test(urls)) return undefined;
  const [username, credential] = [text(json.username), text(json.credential)];
  return username === undefined || credential === undefined ? { urls } : { urls, username, credential };
}

function member(value: unknown): MemberInfo | undefined {
  const json = object(value);
  const id = number(json?.id);
  if (!json || id === undefined) return undefined;
  const muted = object(json.muted) ?? {};
  return {
    id,
    name: text(json.name) ?? "",
    fingerprint: text(json.fingerprint) ?? "",
    door: oneOf(json.door, DOORS) ?? "websocket",
    state: oneOf(json.state, ["connected", "reconnecting"] as const) ?? "connected",
    muted: { audio: flag(muted.audio), video: flag(muted.video) },
    tracks: list(json.tracks, track),
  };
}

function track(value: unknown): TrackInfo | undefined {
  const json = object(value);
  const kind = oneOf(json?.kind, KINDS);
  const slot = number(json?.slot);
  if (!json || kind === undefined || slot === undefined) return undefined;
  const source = oneOf(json.source, SOURCES) ?? (kind === "audio" ? "microphone" : "camera");
  return { kind, source, slot, codec: text(json.codec) ?? "", width: number(json.width), height: number(json.height) };
}

function mid(value: unknown): MidInfo | undefined {
  const json = object(value);
  const name = text(json?.mid);
  if (!json || name === undefined) return undefined;
  const kind = oneOf(json.kind, KINDS) ?? "audio";
  return { mid: name, source: number(json.source) ?? null, kind, slot: number(json.slot) ?? 0 };
}
