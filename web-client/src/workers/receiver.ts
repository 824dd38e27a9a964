import type { MemberInfo } from "../control/messages.js";
import { OpusDecoder } from "../decode/audio-decoder.js";
import { OffsetClock, REPLAY_AGE_MS, Unwrapper } from "../media/clock.js";
import { Reassembler } from "../media/fragments.js";
import { codecName, parseMedia, type MediaMessage } from "../media/header.js";
import { RateMeter } from "../media/rate.js";
import { dominantHz } from "../playout/spectrum.js";
import { epochNow, playoutSource, trackKey, type FromPlayout, type HeldSound, type FromSession, type PictureOf, type PlayoutStats, type ReceivedStats, type SessionToVideo, type ToPlayout, type TrackKey, type VideoTrackStats } from "./messages.js";

interface Incoming {
  key: TrackKey;
  participant: number;
  slot: number;
  reassembler: Reassembler;
  unwrapper: Unwrapper;
  /** When what is live arrives, by its timestamps. */
  clock: OffsetClock;
  /** Sound arrives so much later than a picture with its timestamp, ms; mostly earlier. */
  behind: number;
  meter: RateMeter;
  packets: number;
  codec: string;
  decoder: OpusDecoder | undefined;
  firstPlayedAt: number;
  decodedPackets: number;
}

/** The answers of the two others to one request for statistics. */
interface StatsRequest {
  playout?: FromPlayout & { type: "stats" };
  video?: VideoTrackStats[];
  done: () => void;
}

export interface ReceiverEvents {
  /** A decodable picture needs a keyframe first. */
  needKeyframe(participant: number, slot: number): void;
  toPage(message: FromSession): void;
}

/** Everything that is received over the WebSocket: puts frames together, decodes sound, hands pictures to the video worker. */
export class Receiver {
  /** A stuck or missing worker must not block statistics, ms. */
  static readonly STATS_MS = 500;

  /** So many pictures of a replay go on together: a message costs both workers as much as a picture. */
  static readonly TOGETHER = 8;

  readonly #tracks = new Map<TrackKey, Incoming>();
  readonly #complained = new Set<string>();
  #playout: MessagePort | undefined;
  #latencyMs = 0;
  #roomTime = 0;
  #roomTimeAt = 0;
  #held: PictureOf[] = [];
  #heldTimer: ReturnType<typeof setTimeout> | undefined;
  #maxFrameBytes = 1_048_576;
  #requests = new Map<number, StatsRequest>();

  constructor(
    readonly video: MessagePort,
    readonly events: ReceiverEvents,
  ) {}

  /** A connection was made: the room's clock, and bounds. Counters and references of the earlier connection are void. */
  begin(roomTime: number, maxFrameBytes: number): void {
    this.#roomTime = roomTime;
    this.#roomTimeAt = epochNow();
    this.#maxFrameBytes = maxFrameBytes;
    for (const track of this.#tracks.values()) track.reassembler.restart();
    this.#toVideo({ type: "clock", timestamp: roomTime, at: this.#roomTimeAt });
  }

  setPlayout(port: MessagePort): void {
    this.#playout = port;
    port.onmessage = (event: MessageEvent<FromPlayout>) => this.#fromPlayout(event.data);
  }

  setLatency(ms: number): void {
    this.#latencyMs = ms;
  }

  media(data: ArrayBuffer): void {
    const message = parseMedia(data);
    if (!message || message.layer !== 0) return;
    const now = epochNow();
    const track = this.#track(message);
    track.packets++;
    track.meter.add(now, message.payload.byteLength);
    track.codec = codecName(message.codec);
    const needy = track.reassembler.needsKeyframe;
    const frame = track.reassembler.push(message);
    if (!needy && track.reassembler.needsKeyframe) this.events.needKeyframe(track.participant, track.slot);
    if (!frame) return;
    const timestamp = track.unwrapper.unwrap(frame.timestamp);
    if (message.kind === "audio" || this.#age(timestamp, now) < REPLAY_AGE_MS) this.#arrived(track, timestamp, now);
    if (message.kind === "audio") this.#audio(track, frame.payload, timestamp);
    else this.#picture(track, frame.codec, frame.keyframe, timestamp, now, frame.payload);
  }

  /** Forgets tracks that are gone. */
  update(members: readonly MemberInfo[]): void {
    const alive = new Set(members.flatMap((member) => member.tracks.map((track) => trackKey({ source: member.id, kind: track.kind, slot: track.slot }))));
    for (const [key, track] of this.#tracks) {
      if (alive.has(key)) continue;
      track.decoder?.close();
      if (track.reassembler.kind === "audio") this.#toPlayout({ type: "end", source: playoutSource(track.participant, track.slot) });
      else this.#toVideo({ type: "remove", key });
      this.#tracks.delete(key);
    }
  }

  /** The decoder of a track failed. */
  decoderFailed(key: TrackKey): void {
    const track = this.#tracks.get(key);
    if (!track) return;
    track.reassembler.requireKeyframe();
    this.events.needKeyframe(track.participant, track.slot);
  }

  async stats(request: number, sound: boolean): Promise<ReceivedStats[]> {
    const entry = await new Promise<StatsRequest>((resolve) => {
      const state: StatsRequest = { done: () => resolve(state) };
      this.#requests.set(request, state);
      this.#toPlayout({ type: "stats", request, sound });
      this.#toVideo({ type: "stats", request });
      setTimeout(() => resolve(state), Receiver.STATS_MS);
    });
    this.#requests.delete(request);
    const now = epochNow();
    const rate = entry.playout?.sampleRate ?? 48_000;
    return [...this.#tracks.values()].map((track) => {
      const played = entry.playout?.sources.find((source) => source.source === playoutSource(track.participant, track.slot));
      const shown = entry.video?.find((video) => video.key === track.key);
      const base = { key: track.key, codec: track.codec, packets: track.packets, lost: track.reassembler.lost, bitrate: track.meter.bitrate(now) };
      return track.reassembler.kind === "audio" ? { ...base, ...audioFigures(track, played, rate) } : { ...base, ...videoFigures(track, shown) };
    });
  }

  /** Sound of these participants comes by WebRTC and is heard so many ms after it arrives: their pictures keep step with it. */
  heardElsewhere(sounds: readonly HeldSound[]): void {
    const now = epochNow();
    for (const { participant, ms } of sounds) {
      const offset = this.#tracks.get(trackKey({ source: participant, kind: "video", slot: 0 }))?.clock.offset;
      if (offset === undefined) continue;
      const behind = this.#tracks.get(trackKey({ source: participant, kind: "audio", slot: 0 }))?.behind ?? 0;
      this.#toVideo({ type: "heard", participant, timestamp: now - offset - behind - ms, at: now, elsewhere: true });
    }
  }

  /** From the video worker. */
  videoStats(request: number, tracks: VideoTrackStats[]): void {
    const entry = this.#requests.get(request);
    if (!entry) return;
    entry.video = tracks;
    if (entry.playout || !this.#playout) entry.done();
  }

  #track(message: MediaMessage): Incoming {
    const key = trackKey(message);
    let track = this.#tracks.get(key);
    if (!track) {
      const unwrapper = new Unwrapper();
      unwrapper.unwrap(this.#roomTime);
      track = {
        key, participant: message.source, slot: message.slot, reassembler: new Reassembler(message.kind, this.#maxFrameBytes),
        unwrapper, clock: new OffsetClock(), behind: 0, meter: new RateMeter(), packets: 0, codec: "", decoder: undefined, firstPlayedAt: 0, decodedPackets: 0,
      };
      this.#tracks.set(key, track);
    }
    return track;
  }

  /** By the room's clock, ms. */
  #age(timestamp: number, now: number): number {
    return now - this.#roomTimeAt - (timestamp - this.#roomTime);
  }

  #arrived(track: Incoming, timestamp: number, now: number): void {
    track.clock.map(timestamp, now);
    if (track.reassembler.kind !== "audio") return;
    const picture = this.#tracks.get(trackKey({ source: track.participant, kind: "video", slot: track.slot }))?.clock.offset;
    if (picture !== undefined && track.clock.offset !== undefined) track.behind = track.clock.offset - picture;
  }

  #audio(track: Incoming, payload: Uint8Array, timestamp: number): void {
    if (track.codec === "comfort_noise" || payload.length === 0) return;
    if (track.codec !== "opus" || !OpusDecoder.isSupported) {
      this.#complain(track.codec);
      return;
    }
    // Nobody listens yet: decoding would only make sound for the bin.
    if (!this.#playout) return;
    track.decoder ??= new OpusDecoder((sound) => {
      track.decodedPackets++;
      const transfer: Transferable[] = [sound.left.buffer];
      if (sound.right) transfer.push(sound.right.buffer);
      this.#toPlayout({ type: "pcm", source: playoutSource(track.participant, track.slot), ...sound }, transfer);
    });
    track.decoder.push(payload, timestamp);
  }

  #picture(track: Incoming, codec: number, keyframe: boolean, timestamp: number, arrived: number, payload: Uint8Array): void {
    // The payload of an unfragmented picture is a view into its message, which nobody else needs.
    this.#held.push({ key: track.key, codec, keyframe, timestamp, arrived, data: payload });
    if (keyframe || this.#age(timestamp, arrived) < REPLAY_AGE_MS || this.#held.length >= Receiver.TOGETHER) this.#passOn();
    // What has arrived by now comes before it.
    else this.#heldTimer ??= setTimeout(() => this.#passOn(), 0);
  }

  #passOn(): void {
    clearTimeout(this.#heldTimer);
    this.#heldTimer = undefined;
    const pictures = this.#held;
    if (pictures.length === 0) return;
    this.#held = [];
    this.video.postMessage({ type: "pictures", pictures } satisfies SessionToVideo, pictures.map((picture) => picture.data.buffer));
  }

  #complain(codec: string): void {
    if (this.#complained.has(codec)) return;
    this.#complained.add(codec);
    const message = codec === "opus" ? "This browser cannot decode Opus sound; you will hear nobody." : `Somebody sends ${codec}, which this browser cannot play.`;
    this.events.toPage({ type: "notice", code: "codec_unsupported", message });
  }

  #fromPlayout(message: FromPlayout): void {
    switch (message.type) {
      case "levels": {
        const levels: [number, number][] = [];
        const now = epochNow() + this.#latencyMs;
        for (let at = 0; at + 2 < message.values.length; at += 3) {
          const source = message.values[at] ?? 0;
          const timestamp = message.values[at + 2] ?? Number.NaN;
          const participant = Math.floor(source / 16);
          levels.push([participant, message.values[at + 1] ?? 0]);
          // Only the microphone keeps time for pictures.
          if (source % 16 === 0 && !Number.isNaN(timestamp)) this.#toVideo({ type: "heard", participant, timestamp, at: now, elsewhere: false });
        }
        if (levels.length > 0) this.events.toPage({ type: "levels", levels });
        break;
      }
      case "started":
        for (const track of this.#tracks.values()) {
          if (track.reassembler.kind === "audio" && playoutSource(track.participant, track.slot) === message.source) track.firstPlayedAt = epochNow();
        }
        break;
      case "stats": {
        const entry = this.#requests.get(message.request);
        if (!entry) return;
        entry.playout = message;
        if (entry.video) entry.done();
        break;
      }
    }
  }

  #toPlayout(message: ToPlayout, transfer: Transferable[] = []): void {
    this.#playout?.postMessage(message, transfer);
  }

  #toVideo(message: SessionToVideo): void {
    this.#passOn();
    this.video.postMessage(message);
  }
}

function audioFigures(track: Incoming, played: PlayoutStats | undefined, rate: number): Omit<ReceivedStats, "key" | "codec" | "packets" | "lost" | "bitrate"> {
  return {
    framesDecoded: track.decodedPackets, framesDropped: track.packets - track.decodedPackets, decodeErrors: track.decoder?.errors ?? 0, width: 0, height: 0,
    firstFrameAt: track.firstPlayedAt, freezeMs: played?.concealedMs ?? 0, freezeCount: played?.concealments ?? 0,
    delayMs: played?.delayMs ?? 0, audioLevel: played?.level ?? 0, dominantHz: played?.played.length ? dominantHz(played.played, rate) : 0,
  };
}

function videoFigures(track: Incoming, shown: VideoTrackStats | undefined): Omit<ReceivedStats, "key" | "codec" | "packets" | "lost" | "bitrate"> {
  return {
    framesDecoded: shown?.framesDecoded ?? 0, framesDropped: track.reassembler.framesDropped + (shown?.framesDropped ?? 0), decodeErrors: shown?.decodeErrors ?? 0,
    width: shown?.width ?? 0, height: shown?.height ?? 0, firstFrameAt: shown?.firstFrameAt ?? 0,
    freezeMs: shown?.freezeMs ?? 0, freezeCount: shown?.freezeCount ?? 0, delayMs: shown?.delayMs ?? 0, audioLevel: 0, dominantHz: 0,
  };
}
