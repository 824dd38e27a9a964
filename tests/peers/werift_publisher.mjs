// A WHIP publisher made of werift: `node werift_publisher.mjs URL FILE.h264` plays the file in a loop, with sequence
// numbers that begin shortly before they roll over; says so when they have, and goes on until it is ended.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, RtpPacket } from 'werift';

const [url, file] = process.argv.slice(2);
const pc = new RTCPeerConnection({
  codecs: {
    audio: [],
    video: [new RTCRtpCodecParameters({
      mimeType: 'video/H264', clockRate: 90_000, payloadType: 96, rtcpFeedback: [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }],
      parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f',
    })],
  },
});
const track = new MediaStreamTrack({ kind: 'video' });
pc.addTransceiver(track, { direction: 'sendonly' });
await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
await pc.connectionStateChange.watch((state) => state === 'connected', 10_000);

const socket = createSocket('udp4').bind(0, '127.0.0.1');
await once(socket, 'listening');
let [last, sent] = [undefined, 0];
socket.on('message', (data) => {
  // RTCP of ffmpeg's own.
  if (data[1] >= 192 && data[1] <= 223) return;
  const packet = RtpPacket.deSerialize(data);
  const { sequenceNumber } = packet.header;
  track.writeRtp(packet);
  sent += 1;
  if (last !== undefined && sequenceNumber < last) console.log(`rolled over after ${sent} packets`);
  last = sequenceNumber;
});
const ffmpeg = spawn('ffmpeg', [
  '-hide_banner', '-loglevel', 'error', '-nostdin', '-re', '-stream_loop', '-1', '-framerate', '30', '-i', file,
  '-c', 'copy', '-f', 'rtp', '-payload_type', '96', '-seq', '65400', `rtp://127.0.0.1:${socket.address().port}?pkt_size=1100`,
], { stdio: ['ignore', 'ignore', 'ignore'] });
process.on('exit', () => ffmpeg.kill('SIGKILL'));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
