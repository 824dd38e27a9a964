import { describe, expect, it } from "vitest";
import { parseServerMessage } from "./messages.js";

const parse = (value: unknown): unknown => parseServerMessage(JSON.stringify(value));

describe("parsing of server messages", () => {
  it("ignores what is not JSON, not an object, or of an unknown type", () => {
    expect(parseServerMessage("{")).toBeUndefined();
    for (const value of [1, null, [], "x", {}, { type: "from the future" }, { type: 5 }]) expect(parse(value)).toBeUndefined();
  });

  it("reads joined, with defaults for limits that an older server does not send", () => {
    const message = parse({
      type: "joined", participant: 7, room: "r", fingerprint: "ab", resume: "tok", resumed: false, time_ms: 5, webrtc: true,
      members: [{ id: 7, name: "Ana", fingerprint: "ab", door: "websocket", state: "connected", muted: { audio: true, video: false }, tracks: [] }, { id: "x" }],
    });
    expect(message).toMatchObject({ participant: 7, webrtc: true, limits: { max_frame_bytes: 1_048_576, resume_ms: 10_000 }, members: [{ id: 7, muted: { audio: true } }] });
  });

  it("reads the ICE servers of joined and leaves out what a browser would choke on", () => {
    const servers = [{ urls: "stun:s.example" }, { urls: "turn:t.example?transport=udp", username: "u", credential: "c" }, { urls: "http://x" }, { username: "u" }, 7];
    expect(parse({ type: "joined", participant: 7, resume: "t", ice_servers: servers })).toMatchObject({ ice_servers: servers.slice(0, 2) });
    expect(parse({ type: "joined", participant: 7, resume: "t" })).toMatchObject({ ice_servers: [] });
  });

  it("refuses a message without what it is about", () => {
    expect(parse({ type: "joined", room: "r" })).toBeUndefined();
    expect(parse({ type: "member_left" })).toBeUndefined();
    expect(parse({ type: "ack" })).toBeUndefined();
    expect(parse({ type: "limit", slot: 0, max_bitrate: "fast" })).toBeUndefined();
  });

  it("reads a limit with and without a size", () => {
    const limit = { type: "limit", slot: 0, max_bitrate: 600_000, reason: "viewers" };
    expect(parse({ ...limit, max_side: 360 })).toEqual({ ...limit, max_side: 360 });
    for (const max_side of [undefined, null, "360"]) expect(parse({ ...limit, max_side })).toEqual({ ...limit, max_side: undefined });
  });

  it("takes a state of the uplink that it does not know for one that is not well", () => {
    const uplink = { type: "uplink", relay: "relay.example:4433", state: "connected", message: "in the relay's room" };
    expect(parse(uplink)).toEqual(uplink);
    expect(parse({ ...uplink, state: "dancing" })).toMatchObject({ state: "away" });
  });

  it("keeps the sound tracks of a member and leaves out the others", () => {
    const message = parse({ type: "member_changed", member: { id: 1, name: "B", tracks: [{ kind: "video", source: "camera", slot: 0, codec: "h264", width: 640 }, { kind: "smell", slot: 1 }] } });
    expect(message).toMatchObject({ member: { tracks: [{ kind: "video", codec: "h264", width: 640, height: undefined }] } });
  });
});
