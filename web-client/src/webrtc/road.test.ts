import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ClientMessage, Joined } from "../control/messages.js";
import type { Playback } from "../playout/playback.js";
import type { Roster } from "../room/roster.js";
import { Turns } from "../room/turns.js";
import { Peer } from "./peer.js";
import { WebRtcRoad, type RoadHost } from "./road.js";

const joined: Joined = {
  type: "joined", participant: 1, room: "r", fingerprint: "f", resume: "t", resumed: false, time_ms: 0, members: [], webrtc: true,
  limits: { max_video_bitrate: 1, max_frame_bytes: 1, ack_ms: 1, resume_ms: 1 }, ice_servers: [{ urls: "stun:s.example" }],
};

class FakeSender {
  track: { getSettings: () => MediaTrackSettings } | null = null;

  replaceTrack(track: FakeSender["track"]): Promise<void> {
    this.track = track;
    return Promise.resolve();
  }

  getParameters(): unknown {
    return { encodings: [{}], codecs: [{ mimeType: "video/H264" }] };
  }

  setParameters({ encodings: [encoding] }: { encodings: RTCRtpEncodingParameters[] }): Promise<void> {
    FakeConnection.bounds.push(`1/${encoding?.scaleResolutionDownBy} ${encoding?.maxBitrate}`);
    return Promise.resolve();
  }
}

/** As much of a peer connection as offers are made of; each m-line takes `lineBytes` in its SDP. */
class FakeConnection {
  static made: FakeConnection[] = [];
  static lineBytes = 1700;
  /** What senders were bounded to, in order. */
  static bounds: string[] = [];
  /** What was preferred, in order. */
  static preferred: string[] = [];
  connectionState = "new";
  iceConnectionState = "new";
  signalingState = "stable";
  localDescription: { sdp: string } | undefined;
  onconnectionstatechange: (() => void) | null = null;
  onicecandidate = null;
  oniceconnectionstatechange = null;
  readonly transceivers: { direction: string; mid: string; receiver: { track: { kind: string } } }[] = [];

  constructor(readonly configuration: RTCConfiguration) {
    FakeConnection.made.push(this);
  }

  addTransceiver(kind: string, { direction }: { direction: string }): unknown {
    const setCodecPreferences = (codecs: { mimeType: string }[]): void => {
      FakeConnection.preferred.push(`${direction} ${codecs.map(({ mimeType }) => mimeType.slice(6)).join(" ")}`);
    };
    const transceiver = { direction, mid: String(this.transceivers.length), currentDirection: direction, sender: new FakeSender(), receiver: { track: { kind } }, setCodecPreferences };
    this.transceivers.push(transceiver);
    return transceiver;
  }

  getTransceivers(): unknown {
    return this.transceivers;
  }

  createOffer(): Promise<unknown> {
    return Promise.resolve({ type: "offer", sdp: "x".repeat(FakeConnection.lineBytes * this.transceivers.length) });
  }

  setLocalDescription(description: { sdp: string }): Promise<void> {
    this.localDescription = description;
    this.signalingState = "have-local-offer";
    return Promise.resolve();
  }

  setRemoteDescription(): Promise<void> {
    this.signalingState = "stable";
    return Promise.resolve();
  }

  getStats(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map<string, unknown>());
  }

  connect(): void {
    this.connectionState = this.iceConnectionState = "connected";
    this.onconnectionstatechange?.();
  }

  close(): void {
    this.connectionState = "closed";
  }
}

function room(senders: number, mode: "auto" | "webrtc" = "auto", publications: unknown[] = []): { road: WebRtcRoad; turns: Turns; sent: ClientMessage[]; transports: string[] } {
  const sent: ClientMessage[] = [];
  const transports: string[] = [];
  const host = {
    send: (message: ClientMessage) => sent.push(message),
    publications: () => publications,
    transport: (media: string, reason: string) => transports.push(`${media}: ${reason}`),
    levels: () => undefined,
    voices: () => undefined,
    carried: () => undefined,
  } as unknown as RoadHost;
  const tracks = Array.from({ length: 2 * senders }, (_, i) => ({ kind: i % 2 ? "audio" : "video" }));
  const turns = new Turns();
  const road = new WebRtcRoad(mode, host, { tracks } as unknown as Roster, undefined as unknown as Playback, turns);
  return { road, turns, sent, transports };
}

const offers = (sent: ClientMessage[]): string[] => sent.flatMap((message) => (message.type === "offer" ? [message.sdp] : []));
const kinds = (connection: FakeConnection | undefined, kind: string): number => (connection?.transceivers ?? []).filter((one) => one.receiver.track.kind === kind).length;

beforeEach(() => {
  FakeConnection.made = [];
  FakeConnection.lineBytes = 1700;
  FakeConnection.preferred = [];
  FakeConnection.bounds = [];
  vi.stubGlobal("RTCPeerConnection", FakeConnection);
  const h264 = { mimeType: "video/H264", sdpFmtpLine: "packetization-mode=1;profile-level-id=42e01f" };
  const capabilities = { getCapabilities: (kind: string) => ({ codecs: kind === "audio" ? [{ mimeType: "audio/opus" }] : [h264, { mimeType: "video/AV1" }] }) };
  vi.stubGlobal("RTCRtpSender", capabilities);
  vi.stubGlobal("RTCRtpReceiver", capabilities);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the pool of receiving m-lines", () => {
  it("has room for 30 senders and more, and an end", async () => {
    const { road, sent } = room(30);
    road.begin(joined);
    await vi.waitFor(() => expect(offers(sent)).toHaveLength(1));
    const [connection] = FakeConnection.made;
    expect([kinds(connection, "audio"), kinds(connection, "video")]).toEqual([31, 31]);
    road.message({ type: "answer", sdp: "v=0" });
    road.message({ type: "need_mids", audio: 99, video: 99 });
    await vi.waitFor(() => expect(offers(sent)).toHaveLength(2));
    expect([kinds(connection, "audio"), kinds(connection, "video")]).toEqual([Peer.MAX_RECEIVING, Peer.MAX_RECEIVING]);
    // All that there is to have: no further offers.
    road.message({ type: "answer", sdp: "v=0" });
    road.message({ type: "need_mids", audio: 100, video: 100 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(offers(sent)).toHaveLength(2);
    road.close();
  });

  it("begins within its bounds in a full room", async () => {
    const { road, sent } = room(99);
    road.begin(joined);
    await vi.waitFor(() => expect(offers(sent)).toHaveLength(1));
    expect(kinds(FakeConnection.made[0], "video")).toBe(Peer.MAX_RECEIVING);
    road.close();
  });

  it("gives way to the WebSocket rather than send an offer that would end the session", async () => {
    FakeConnection.lineBytes = 5000;
    const { road, sent, transports } = room(30);
    road.begin(joined);
    await vi.waitFor(() => expect(transports.at(-1)).toMatch(/too large/));
    expect(offers(sent)).toEqual([]);
  });
});

describe("the road by WebRTC", () => {
  it("uses the ICE servers of the gateway", async () => {
    const { road } = room(0);
    road.begin(joined);
    await vi.waitFor(() => expect(FakeConnection.made).toHaveLength(1));
    expect(FakeConnection.made[0]?.configuration.iceServers).toEqual(joined.ice_servers);
    road.close();
  });

  it("offers anew without H.264 once the browser turns out to be late with it, and only then", async () => {
    const camera = { number: 1, kind: "video", slot: 0, maxBitrate: 1, fps: 30, source: "camera", announced: true };
    const { road, sent } = room(0, "auto", [camera]);
    road.begin(joined);
    await vi.waitFor(() => expect(offers(sent)).toHaveLength(1));
    road.message({ type: "answer", sdp: "v=0" });
    await new Promise((resolve) => setTimeout(resolve, 0));
    road.prefer("h264");
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(offers(sent)).toHaveLength(1);
    expect(FakeConnection.preferred.filter((one) => one.startsWith("sendonly"))).toEqual(["sendonly H264 AV1"]);
    road.prefer("av1");
    await vi.waitFor(() => expect(offers(sent)).toHaveLength(2));
    expect(FakeConnection.preferred.filter((one) => one.startsWith("sendonly"))).toEqual(["sendonly H264 AV1", "sendonly AV1"]);
    expect(FakeConnection.preferred.filter((one) => one.startsWith("recvonly"))).toEqual(["recvonly opus", "recvonly H264 AV1"]);
    road.close();
  });

  for (const [source, expected] of [
    ["camera", ["1/1 1200000", "1/2 600000", "1/4 150000", "1/1 150000", "1/1 1200000"]],
    ["screen", ["1/1 1200000", "1/1 1200000", "1/1 150000", "1/1 150000", "1/1 1200000"]],
  ] as const) {
    it(`bounds a ${source} as the server says`, async () => {
      const track = { getSettings: () => ({ width: 1280, height: 720 }) };
      const publication = { number: 1, kind: "video", slot: 0, maxBitrate: 1_200_000, fps: 30, source, announced: true, muted: false, track };
      const { road } = room(0, "auto", [publication]);
      road.begin(joined);
      await vi.waitFor(() => expect(FakeConnection.made).toHaveLength(1));
      FakeConnection.made[0]?.connect();
      const limit = (max_bitrate: number, max_side: number | undefined): void => road.message({ type: "limit", slot: 0, max_bitrate, max_side, reason: "viewers" });
      await vi.waitFor(() => expect(FakeConnection.bounds).toHaveLength(1));
      let count = 1;
      for (const [bitrate, side] of [[2_500_000, 360], [150_000, 180], [150_000, undefined], [2_500_000, undefined]] as const) {
        limit(bitrate, side);
        count++;
        await vi.waitFor(() => expect(FakeConnection.bounds).toHaveLength(count));
      }
      expect(FakeConnection.bounds).toEqual(expected);
      road.close();
    });
  }

  for (const [mode, after] of [["auto", 3000], ["webrtc", 15_000]] as const) {
    it(`gives way to the WebSocket after ${after} ms without a connection (${mode})`, async () => {
      vi.useFakeTimers();
      const { road, transports } = room(1, mode);
      road.begin(joined);
      await vi.advanceTimersByTimeAsync(after - 1);
      expect(transports).toEqual(["websocket: until WebRTC is connected"]);
      await vi.advanceTimersByTimeAsync(1);
      expect(transports.at(-1)).toMatch(/^websocket: WebRTC did not connect in time/);
    });
  }

  it("takes over after all when it is connected late", async () => {
    vi.useFakeTimers();
    const { road, transports } = room(0);
    road.begin(joined);
    await vi.advanceTimersByTimeAsync(14_000);
    expect(transports.at(-1)).toMatch(/^websocket: WebRTC did not connect in time/);
    FakeConnection.made[0]?.connect();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(transports.at(-1)).toBe("webrtc: connected");
    road.close();
  });

  it("leaves nothing behind when it is never connected", async () => {
    vi.useFakeTimers();
    const { road } = room(0);
    road.begin(joined);
    await vi.advanceTimersByTimeAsync(14_999);
    expect(FakeConnection.made[0]?.connectionState).toBe("new");
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeConnection.made[0]?.connectionState).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
    road.close();
  });

  it("stays when it is connected in time", async () => {
    const { road, transports } = room(0);
    road.begin(joined);
    await vi.waitFor(() => expect(FakeConnection.made).toHaveLength(1));
    vi.useFakeTimers();
    FakeConnection.made[0]?.connect();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(transports.at(-1)).toBe("webrtc: connected");
    road.close();
  });
});
