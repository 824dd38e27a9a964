// A WHEP viewer made of werift: `node werift_viewer.mjs URL PICTURE SOUND` writes the H.264 and the Opus that it receives to files, ends its
// session after three seconds of media, and prints what it got.
import { writeFileSync } from 'node:fs';
import { H264RtpPayload, RTCPeerConnection, RTCRtpCodecParameters } from 'werift';
import { oggOpus } from './ogg.mjs';

const [url, picture, sound] = process.argv.slice(2);
const pc = new RTCPeerConnection({
  codecs: {
    audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: 48_000, channels: 2, payloadType: 111 })],
    video: [new RTCRtpCodecParameters({
      mimeType: 'video/H264', clockRate: 90_000, payloadType: 96, rtcpFeedback: [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }],
      parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f',
    })],
  },
});
const [units, sounds] = [[], []];
let fragment;
const enough = new Promise((resolve) => {
  pc.onTrack.subscribe((track) => track.onReceiveRtp.subscribe((rtp) => {
    if (track.kind === 'audio') {
      sounds.push(rtp.payload);
    } else {
      const unit = H264RtpPayload.deSerialize(rtp.payload, fragment);
      fragment = unit.fragment;
      if (unit.payload) units.push(unit.payload);
    }
    if (sounds.length >= 150 && units.length >= 90) resolve();
  }));
});
setTimeout(() => {
  console.error(`20 s: ${pc.connectionState}, ${sounds.length} sounds, ${units.length} NAL units`);
  process.exit(1);
}, 20_000);
pc.addTransceiver('audio', { direction: 'recvonly' });
pc.addTransceiver('video', { direction: 'recvonly' });
await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
await enough;
writeFileSync(picture, Buffer.concat(units));
writeFileSync(sound, oggOpus(sounds));
const { status } = await fetch(new URL(response.headers.get('Location'), url), { method: 'DELETE' });
console.log(JSON.stringify({ sounds: sounds.length, deleted: status }));
// It leaves sockets open after close().
process.exit(0);
