// Runs inside the page: one peer connection per page, publisher or viewer.
const state = { pc: null, id: null, offers: 0 };

const until = async (what, ok, ms = 10_000) => {
  const end = performance.now() + ms;
  while (!(await ok())) {
    if (performance.now() > end) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

const report = async (type, kind) => {
  const all = [...(await state.pc.getStats()).values()];
  return all.filter((entry) => entry.type === type && (!kind || entry.kind === kind));
};

async function negotiate({ tcpOnly = false, iceRestart = false } = {}) {
  const { pc } = state;
  await pc.setLocalDescription(await pc.createOffer({ iceRestart }));
  state.offers += 1;
  const response = await fetch(`/offer?id=${state.id}&role=${state.role}`, {
    method: 'POST',
    body: pc.localDescription.sdp,
  });
  let sdp = await response.text();
  if (!response.ok) throw new Error(`offer refused: ${sdp}`);
  if (tcpOnly) {
    sdp = sdp
      .split('\r\n')
      .filter((line) => !(line.startsWith('a=candidate') && line.includes(' udp ')))
      .join('\r\n');
  }
  state.answer = sdp;
  await pc.setRemoteDescription({ type: 'answer', sdp });
}

function open(id, role, tcpOnly) {
  state.id = id;
  state.role = role;
  state.pc = new RTCPeerConnection();
  state.pc.onicecandidate = ({ candidate }) => {
    // Told of our UDP candidates, a full agent would reach us that way.
    if (candidate?.candidate && !tcpOnly) fetch(`/candidate?id=${id}`, { method: 'POST', body: candidate.candidate });
  };
}

const connected = () => until('connected', () => state.pc.connectionState === 'connected');

window.publish = async ({ id, codec, tcpOnly, simulcast }) => {
  open(id, 'publish', tcpOnly);
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
  for (const track of media.getTracks()) {
    const layers = ['q', 'h', 'f'].map((rid, at) => ({ rid, scaleResolutionDownBy: 4 / 2 ** at }));
    const sendEncodings = simulcast && track.kind === 'video' ? layers : [{}];
    const transceiver = state.pc.addTransceiver(track, { direction: 'sendonly', streams: [media], sendEncodings });
    if (track.kind === 'video') {
      const codecs = RTCRtpSender.getCapabilities('video').codecs.filter(
        (entry) => entry.mimeType === `video/${codec}` || entry.mimeType === 'video/rtx',
      );
      transceiver.setCodecPreferences(codecs);
    }
  }
  const start = performance.now();
  await negotiate({ tcpOnly });
  await connected();
  return { connectMs: performance.now() - start };
};

window.view = async ({ id, tcpOnly, lines = 1 }) => {
  open(id, 'view', tcpOnly);
  state.pc.ontrack = ({ track }) => {
    // Sound has no energy in the statistics unless something plays it.
    const element = document.createElement(track.kind);
    element.autoplay = true;
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
  };
  for (let line = 0; line < lines; line += 1) {
    state.pc.addTransceiver('audio', { direction: 'recvonly' });
    state.pc.addTransceiver('video', { direction: 'recvonly' });
  }
  const start = performance.now();
  await negotiate({ tcpOnly });
  await connected();
  const connectMs = performance.now() - start;
  await until('a decoded frame', async () => (await report('inbound-rtp', 'video')).some((entry) => entry.framesDecoded > 0));
  return { connectMs, firstFrameMs: performance.now() - start };
};

window.inbound = async () => {
  const pairs = (await report('candidate-pair')).filter((pair) => pair.nominated && pair.state === 'succeeded');
  const locals = await report('local-candidate');
  const codecs = await report('codec');
  const video = (await report('inbound-rtp', 'video')).filter((entry) => entry.packetsReceived > 0);
  const audio = (await report('inbound-rtp', 'audio')).filter((entry) => entry.packetsReceived > 0);
  const sum = (list, key) => list.reduce((total, entry) => total + (entry[key] ?? 0), 0);
  return {
    codec: codecs.find((entry) => entry.id === video[0]?.codecId)?.mimeType,
    protocol: locals.find((entry) => entry.id === pairs.at(-1)?.localCandidateId)?.protocol,
    framesDecoded: sum(video, 'framesDecoded'),
    keyFrames: sum(video, 'keyFramesDecoded'),
    lost: sum(video, 'packetsLost'),
    nacks: sum(video, 'nackCount'),
    plis: sum(video, 'pliCount'),
    retransmitted: sum(video, 'retransmittedPacketsReceived'),
    packets: sum(video, 'packetsReceived'),
    freezes: sum(video, 'freezeCount'),
    audioPackets: sum(audio, 'packetsReceived'),
    audioEnergy: sum(audio, 'totalAudioEnergy'),
    concealed: sum(audio, 'concealedSamples'),
    height: Math.max(0, ...video.map((entry) => entry.frameHeight ?? 0)),
  };
};

window.outbound = async () => {
  const video = (await report('outbound-rtp', 'video'))[0];
  const remote = (await report('remote-inbound-rtp', 'video'))[0];
  const pair = (await report('candidate-pair')).find((entry) => entry.nominated);
  return {
    framesEncoded: video?.framesEncoded,
    retransmitted: video?.retransmittedPacketsSent,
    plis: video?.pliCount,
    target: video?.targetBitrate,
    available: pair?.availableOutgoingBitrate,
    reportedRtt: remote?.roundTripTime,
    fractionLost: remote?.fractionLost,
  };
};

// Stops and starts the second pair of m-lines, as a browser page with a pool of receiving m-lines does.
window.renegotiate = async ({ rounds }) => {
  const times = [];
  for (let round = 0; round < rounds; round += 1) {
    const transceivers = state.pc.getTransceivers();
    for (const transceiver of transceivers.slice(2, 4)) {
      transceiver.direction = transceiver.direction === 'inactive' ? 'recvonly' : 'inactive';
    }
    const start = performance.now();
    await negotiate();
    times.push(performance.now() - start);
    if (transceivers[3].direction === 'recvonly') {
      const before = (await receivedOn(transceivers[3])) ?? 0;
      await until(`packets on mid ${transceivers[3].mid}`, async () => (await receivedOn(transceivers[3])) > before);
    }
  }
  return { lines: state.pc.getTransceivers().length, state: state.pc.connectionState, times };
};

const receivedOn = async (transceiver) => {
  const stats = [...(await transceiver.receiver.getStats()).values()];
  return stats.find((entry) => entry.type === 'inbound-rtp')?.packetsReceived;
};

window.restartIce = async () => {
  const before = (await window.inbound()).framesDecoded;
  await negotiate({ iceRestart: true });
  await until('frames after the ICE restart', async () => (await window.inbound()).framesDecoded > before + 20);
  return { state: state.pc.connectionState, ice: state.pc.iceConnectionState };
};

window.closePeer = () => state.pc.close();
