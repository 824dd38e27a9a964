// A room in a few lines: enough of the browser protocol to try the client without a gateway. Members hear and see each other; with `echo`, themselves too,
// as a second participant.
import { WebSocketServer } from "ws";

const ECHO = 1000;

export function serveRoom(server, { echo = false, webrtc = false } = {}) {
  // The page's own second peer connection plays the gateway's part in WebRTC; it is reached by a socket of its own.
  let helper;
  const sockets = new WebSocketServer({ server, handleProtocols: (protocols) => [...protocols][0] });
  const members = new Map();
  const log = [];
  let nextId = 1;
  const start = Date.now();

  const describe = (member, id = member.id) => ({
    id, name: id === member.id ? member.name : `${member.name}'s echo`, fingerprint: `f${id}`, door: "websocket", state: "connected", muted: member.muted, tracks: member.tracks,
  });
  const others = (member) => [...members.values()].filter((other) => other !== member);
  const list = (member) => [...[...members.values()].map((other) => describe(other)), ...(echo ? [describe(member, member.id + ECHO)] : [])];
  const say = (member, message) => member.socket.send(JSON.stringify(message));

  sockets.on("connection", (socket, request) => {
    if (request.url === "/helper") {
      helper = socket;
      socket.on("message", (data) => {
        const { to, ...message } = JSON.parse(data.toString());
        if (message.mids) message.mids.forEach((mid) => (mid.source = mid.source === null ? null : to + ECHO));
        const member = members.get(to);
        if (member) say(member, message);
      });
      return;
    }
    const member = { id: 0, name: "", socket, tracks: [], muted: { audio: false, video: false }, received: 0, acked: 0, sentOffset: undefined };
    say(member, { type: "hello", version: 2, server: "smoke", auth_required: false });
    const acks = setInterval(() => {
      if (member.received === member.acked) return;
      member.acked = member.received;
      say(member, { type: "ack", media: member.received });
    }, 20);
    const changed = () => {
      for (const other of others(member)) say(other, { type: "member_changed", member: describe(member) });
      if (echo) say(member, { type: "member_changed", member: describe(member, member.id + ECHO) });
    };
    socket.on("message", (data, binary) => {
      if (binary) {
        member.received++;
        forward(member, data);
        return;
      }
      const message = JSON.parse(data.toString());
      if (message.type !== "ack" && message.type !== "ping") log.push([member.id, message]);
      switch (message.type) {
        case "join":
          member.id = nextId++;
          member.name = message.name;
          members.set(member.id, member);
          say(member, {
            type: "joined", participant: member.id, room: "r", fingerprint: `f${member.id}`, resume: `t${member.id}`, resumed: false, time_ms: Date.now() - start, members: list(member),
            limits: { max_video_bitrate: 2_500_000, max_frame_bytes: 1_048_576, ack_ms: 50, resume_ms: 10_000 }, webrtc,
          });
          for (const other of others(member)) say(other, { type: "member_joined", member: describe(member) });
          break;
        case "publish":
          member.tracks = message.tracks;
          changed();
          break;
        case "mute":
          member.muted = { audio: message.audio, video: message.video };
          changed();
          break;
        case "keyframe": {
          const target = members.get(message.source % ECHO);
          if (target) say(target, { type: "keyframe", slot: message.slot });
          break;
        }
        case "offer":
        case "candidate":
          helper?.send(JSON.stringify({ ...message, from: member.id }));
          break;
        case "ping":
          say(member, { type: "pong", t: message.t });
          break;
        case "bye":
          socket.close(1000);
          break;
      }
    });
    socket.on("close", (code) => {
      log.push([member.id, { type: "closed", code }]);
      clearInterval(acks);
      if (!members.delete(member.id)) return;
      for (const other of members.values()) say(other, { type: "member_left", id: member.id, reason: "left" });
    });
  });

  const forward = (member, data) => {
    const copy = Buffer.from(data);
    // The sender's clock becomes the room's by the smallest offset that was seen.
    const offset = Date.now() - start - copy.readUInt32BE(15);
    member.sentOffset = member.sentOffset === undefined ? offset : Math.min(offset, member.sentOffset);
    copy.writeUInt32BE((copy.readUInt32BE(15) + member.sentOffset) >>> 0, 15);
    const to = (receiver, id) => {
      copy.writeUInt32BE(id, 1);
      receiver.socket.send(Buffer.from(copy));
    };
    for (const other of others(member)) to(other, member.id);
    if (echo) to(member, member.id + ECHO);
  };

  return { log, members, close: () => sockets.close() };
}
