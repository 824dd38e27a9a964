// A listener of `wzp.v2` (docs/browser-protocol.md) without the library: joins, counts frames, acknowledges, leaves.
//   npm install ws; node examples/listen.mjs ws://127.0.0.1:8443/ws/lobby 10
import { randomBytes } from "node:crypto";
import { WebSocket } from "ws";

const [url = "", seconds = "10"] = process.argv.slice(2);
const socket = new WebSocket(url, "wzp.v2");
const send = (message) => socket.send(JSON.stringify(message));
const names = new Map();
const tracks = new Map();

// Section 4: at once after a picture, within 50 ms, every 16 messages at the latest, never more often than every 10 ms.
let received = 0;
let acknowledged = 0;
let last = 0;
let timer;
function acknowledge() {
  clearTimeout(timer);
  timer = undefined;
  const wait = last + 10 - performance.now();
  if (wait > 0) {
    timer = setTimeout(acknowledge, wait);
    return;
  }
  last = performance.now();
  acknowledged = received;
  send({ type: "ack", media: received });
}

function media(data) {
  received += 1;
  const endsPicture = data[0] === 1 && data[7] === 1 && data[6] & 0x10;
  if (endsPicture || received - acknowledged >= 16) acknowledge();
  else timer ??= setTimeout(acknowledge, 40);
  if (data[0] !== 1) return; // section 3: other kinds are ignored
  const source = data.readUInt32BE(1);
  const header = data.subarray(5, 21);
  const video = header[2] === 1;
  const fragment = header.readUInt16BE(14);
  const key = `${names.get(source) ?? source} ${video ? "video" : "audio"} ${header[4] & 15}`;
  const track = tracks.get(key) ?? { frames: 0, keyframes: 0, bytes: 0 };
  tracks.set(key, track);
  track.bytes += data.length - 21;
  if (video && fragment >> 8 !== (fragment & 255) - 1) return; // more pieces of this frame follow
  track.frames += 1;
  if (video && header[1] & 0x20) track.keyframes += 1;
}

socket.on("open", () => {
  send({ type: "hello", versions: [2], client: "listen.mjs" });
  send({ type: "join", name: "Listener", id: randomBytes(16).toString("hex"), decode: ["opus", "h264", "av1"] });
});
socket.on("message", (data, binary) => {
  if (binary) {
    media(data);
    return;
  }
  const message = JSON.parse(data.toString());
  if (message.type === "ping") send({ type: "pong", t: message.t });
  if (message.type === "error") console.error(`${message.code}: ${message.message}`);
  if (message.type === "joined") setTimeout(() => send({ type: "bye" }), Number(seconds) * 1000);
  for (const member of message.members ?? (message.member ? [message.member] : [])) {
    names.set(member.id, member.name);
    console.log(member.id, member.name, member.door, member.tracks.map((track) => track.codec).join(" "));
  }
  if (message.type === "member_left") console.log(message.id, "left:", message.reason);
});
socket.on("unexpected-response", (_, response) => response.pipe(process.stderr));
socket.on("error", (error) => console.error(error.message));
socket.on("close", (code, reason) => {
  console.log("closed", code, reason.toString());
  console.table(Object.fromEntries(tracks));
});
