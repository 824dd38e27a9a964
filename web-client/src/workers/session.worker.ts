import { SUBPROTOCOL, type MemberInfo, type ServerMessage, type ShownTrack, type TrackRef } from "../control/messages.js";
import { PreparedSocket } from "../control/prepared-socket.js";
import { Session, type Socket } from "../control/session.js";
import { claimedCodecs, decodableCodecs } from "../decode/decodable.js";
import { chooseVideoCodec } from "../encode/probe.js";
import { dominantHz, rms } from "../playout/spectrum.js";
import { epochNow, type FromSession, type ToSession, type VideoToSession } from "./messages.js";
import { Receiver } from "./receiver.js";
import { workerScope } from "./scope.js";
import { Sender } from "./sender.js";

// The worker that holds the WebSocket, so that nothing which keeps the page busy delays media. It sends and receives; the page decides.

/** Keyframe requests for one track are at least so far apart, ms. */
const KEYFRAME_PAUSE_MS = 500;
/** After the join, the encoders are tried out, ms. */
const PROBE_AFTER_MS = 500;

const page = workerScope<ToSession, FromSession>();
const toPage = (message: FromSession): void => page.postMessage(message);

const prepared = new PreparedSocket((url) => new WebSocket(url, SUBPROTOCOL));
let session: Session | undefined;
let receiver: Receiver | undefined;
let sender: Sender | undefined;
let backlog = 0;
let paused: TrackRef[] = [];
let shown: ShownTrack[] = [];
const members = new Map<number, MemberInfo>();
const askedAt = new Map<string, number>();
let lastAnnouncement = "";
/** What is told at the join. The browser's answer is there before the socket is open; if not, what it claims has to do. */
let decodable = claimedCodecs();
void decodableCodecs().then((codecs) => (decodable = codecs));

function start({ url, name, id, token, videoPort }: ToSession & { type: "start" }): void {
  const newSession = new Session(
    { name, id, token, decode: () => decodable, now: epochNow, openSocket: () => prepared.take(url) as unknown as Socket },
    {
      joined: (message) => {
        members.clear();
        for (const member of message.members) members.set(member.id, member);
        receiver?.begin(message.time_ms, message.limits.max_frame_bytes);
        receiver?.update(message.members);
        sender?.begin();
        toPage({ type: "joined", message, at: epochNow() });
        lastAnnouncement = "";
        announce();
        if (paused.length > 0) newSession.send({ type: "pause", tracks: paused });
        if (shown.length > 0) newSession.send({ type: "view", tracks: shown });
        // Before a camera is there, so that publishing need not wait for it; but not while the first pictures are decoded.
        setTimeout(() => void tellVideoCodec(), PROBE_AFTER_MS);
      },
      reconnecting: () => toPage({ type: "reconnecting" }),
      message: fromServer,
      media: (data) => receiver?.media(data),
      acknowledged: () => sender?.uplink.onAck(),
      closed: (error) => {
        sender?.close();
        toPage({ type: "closed", error });
      },
    },
    () => backlog,
  );
  session = newSession;
  receiver = new Receiver(videoPort, { needKeyframe: askKeyframe, toPage });
  videoPort.onmessage = (event: MessageEvent<VideoToSession>) => fromVideo(event.data);
  sender = new Sender((data) => newSession.sendMedia(data), () => newSession.window, { announce, toPage });
  // Pieces of a large picture that waited for room also go when no acknowledgement comes.
  setInterval(() => sender?.uplink.pump(), 20);
  newSession.start();
}

async function tellVideoCodec(): Promise<void> {
  const codec = await chooseVideoCodec();
  if (codec !== undefined) toPage({ type: "video-codec", codec });
}

/** Tells the room what is sent and what is muted, if that changed. */
function announce(): void {
  if (!session?.isJoined || !sender) return;
  const { tracks, muted } = sender;
  const announcement = JSON.stringify([tracks, muted]);
  if (announcement === lastAnnouncement) return;
  lastAnnouncement = announcement;
  session.send({ type: "publish", tracks });
  session.send({ type: "mute", ...muted });
}

function askKeyframe(source: number, slot: number): void {
  const key = `${source}:${slot}`;
  const now = epochNow();
  if (now - (askedAt.get(key) ?? -Infinity) < KEYFRAME_PAUSE_MS) return;
  askedAt.set(key, now);
  session?.send({ type: "keyframe", source, slot });
}

function fromServer(message: ServerMessage): void {
  switch (message.type) {
    case "keyframe":
      sender?.requestKeyframe(message.slot);
      break;
    case "limit":
      sender?.limit(message.slot, message.max_bitrate, message.reason, message.max_side);
      break;
    case "member_joined":
    case "member_changed":
      members.set(message.member.id, message.member);
      receiver?.update([...members.values()]);
      break;
    case "member_left":
      members.delete(message.id);
      receiver?.update([...members.values()]);
      break;
  }
  toPage({ type: "message", message });
}

function fromVideo(message: VideoToSession): void {
  switch (message.type) {
    case "keyframe":
      receiver?.decoderFailed(message.key);
      break;
    case "backlog":
      backlog = message.ms;
      session?.backlogChanged();
      break;
    case "stats":
      receiver?.videoStats(message.request, message.tracks);
      break;
  }
}

async function stats({ request, sound, played }: ToSession & { type: "stats" }): Promise<void> {
  const received = (await receiver?.stats(request, sound)) ?? [];
  const measured = played.map(({ mid, samples, sampleRate }) => ({ mid, audioLevel: rms(samples), dominantHz: dominantHz(samples, sampleRate) }));
  toPage({ type: "stats", request, rttMs: session?.rttMs ?? 0, received, sending: sender?.stats() ?? [], measured });
}

page.onmessage = ({ data }) => {
  switch (data.type) {
    case "prepare":
      prepared.prepare(data.url);
      break;
    case "start":
      start(data);
      break;
    case "playout":
      receiver?.setPlayout(data.port);
      break;
    case "playout-latency":
      receiver?.setLatency(data.ms);
      break;
    case "held":
      receiver?.heardElsewhere(data.sounds);
      break;
    case "publish":
      void sender?.publish(data.spec);
      break;
    case "feed":
      sender?.feed(data.publication, data.feed);
      break;
    case "carried":
      sender?.setCarried(data.publication, data.codec);
      break;
    case "mute":
      sender?.mute(data.publication, data.on);
      break;
    case "unpublish":
      sender?.unpublish(data.publication);
      break;
    case "pause":
      paused = data.tracks;
      session?.send({ type: "pause", tracks: paused });
      break;
    case "view":
      shown = data.tracks;
      session?.send({ type: "view", tracks: shown });
      break;
    case "control":
      session?.send(data.message);
      break;
    case "network":
      session?.networkChanged();
      break;
    case "stats":
      void stats(data);
      break;
    case "leave":
      session?.leave(data.reason);
      break;
  }
};
