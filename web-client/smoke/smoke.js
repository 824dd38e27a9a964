// In the page: publishes a moving picture and a tone, and hands the room to the test.
import { connect } from "/lib/index.js";

const HZ = 440;

function movingPicture(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  let n = 0;
  setInterval(() => {
    n++;
    context.fillStyle = `hsl(${(n * 3) % 360} 60% 40%)`;
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#fff";
    context.fillRect((n * 7) % width, (n * 5) % height, 60, 60);
    context.font = "48px sans-serif";
    context.fillText(String(n), 40, 80);
    // The time, as sixteen squares, so that a viewer on this machine can tell the delay.
    const time = Date.now() & 0xffff;
    for (let bit = 0; bit < 16; bit++) {
      context.fillStyle = time & (1 << bit) ? "#fff" : "#000";
      context.fillRect((bit * width) / 16, height - height / 8, width / 16 + 1, height / 8);
    }
  }, 33);
  return canvas.captureStream(30).getVideoTracks()[0];
}

function tone(hz) {
  const context = new AudioContext({ sampleRate: 48000 });
  const oscillator = context.createOscillator();
  oscillator.frequency.value = hz;
  const gain = context.createGain();
  gain.gain.value = 0.3;
  const destination = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(destination);
  oscillator.start();
  return destination.stream.getAudioTracks()[0];
}

/** The gateway's side of WebRTC: takes what the page sends and sends it back on the m-lines that receive. */
async function mirror() {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/helper", "wzp.v2");
  const peer = new RTCPeerConnection();
  let id = 0;
  peer.onicecandidate = () => undefined;
  socket.onmessage = async ({ data }) => {
    const message = JSON.parse(data);
    id = message.from;
    if (message.type === "candidate") await peer.addIceCandidate({ candidate: message.candidate, sdpMid: "0" }).catch(() => undefined);
    if (message.type !== "offer") return;
    await peer.setRemoteDescription({ type: "offer", sdp: message.sdp });
    const lines = peer.getTransceivers();
    const mids = [];
    for (const { mid, kind, slot } of message.send) {
      const from = lines.find((line) => line.mid === mid);
      const taken = new Set(mids.map((entry) => entry.mid));
      const to = lines.find((line) => line.receiver.track.kind === kind && !taken.has(line.mid) && !message.send.some((entry) => entry.mid === line.mid));
      if (!from || !to) continue;
      to.direction = "sendonly";
      await to.sender.replaceTrack(from.receiver.track);
      mids.push({ mid: to.mid, source: 0, kind, slot });
    }
    await peer.setLocalDescription();
    if (peer.iceGatheringState !== "complete") await new Promise((resolve) => (peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve()));
    socket.send(JSON.stringify({ to: id, type: "answer", sdp: peer.localDescription.sdp }));
    socket.send(JSON.stringify({ to: id, type: "mids", mids }));
  };
  await new Promise((resolve) => (socket.onopen = resolve));
}

window.smoke = {
  mirror,
  events: [],
  publications: [],
  async start({ width = 640, height = 360, hz = HZ, url = location.origin.replace("http", "ws") + "/ws/smoke", name = "Smoke", id, transport = "websocket" } = {}) {
    const room = await connect(url, { alias: name, transport, ...(id ? { id } : {}) });
    window.room = room;
    for (const type of ["state", "participantjoined", "participantleft", "trackadded", "speakers", "audioblocked", "notice", "error", "transport"]) {
      room.on(type, (...args) => this.events.push([type, ...args.map((arg) => arg?.alias ?? arg?.code ?? arg?.kind ?? (arg?.media ? `${arg.media}: ${arg.reason}` : arg))]));
    }
    const show = (track) => {
      if (track.element) document.body.append(track.element);
      track.on("element", (element) => document.body.replaceChildren(element));
    };
    room.on("trackadded", show);
    for (const participant of room.participants.values()) participant.tracks.forEach(show);
    this.publications.push(await room.publish(movingPicture(width, height)), await room.publish(tone(hz)));
  },
  /** Goes on with other devices: the browser's fake camera and microphone. */
  async devices() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
    await this.publications[0].replaceTrack(stream.getVideoTracks()[0]);
    await this.publications[1].replaceTrack(stream.getAudioTracks()[0]);
  },
  other: () => [...window.room.participants.values()].find((participant) => !participant.isLocal),
  refused: (url) => connect(url, { alias: "Eve" }).then(() => "joined", (error) => error.code),
  /** From the moment of drawing to being seen here, ms. */
  delay() {
    const { data, width, height } = this.picture();
    let time = 0;
    for (let bit = 0; bit < 16; bit++) {
      const at = 4 * (Math.floor(height - height / 16) * width + Math.floor(((bit + 0.5) * width) / 16));
      if (data[at] > 127) time |= 1 << bit;
    }
    return ((Date.now() & 0xffff) - time) & 0xffff;
  },
  async delays(seconds) {
    const found = [];
    for (let i = 0; i < seconds * 20; i++) {
      found.push(this.delay());
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return found;
  },
  pixels() {
    return [...this.picture().data.slice(4 * 1300, 4 * 1300 + 4)];
  },
  picture() {
    const canvas = [...document.querySelectorAll("body > canvas, body > video")].at(-1);
    const copy = document.createElement("canvas");
    copy.width = canvas.videoWidth ?? canvas.width;
    copy.height = canvas.videoHeight ?? canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return context.getImageData(0, 0, copy.width, copy.height);
  },
};
