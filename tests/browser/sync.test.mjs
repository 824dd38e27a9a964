// Sound and picture of one source that come by two roads: the picture by the WebSocket, until its source makes a keyframe, and the sound
// by WebRTC.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { joinNative, pass, startGateway, until, watchBusy } from './gateway.mjs';
import { beeps, flashes } from './media.mjs';
import { skew } from './skew.mjs';

/** Remembers the page's peer connections, and has the browser hold back what it receives for 150 ms, as if packets came unevenly. */
const prepare = () => {
  const { set } = Object.getOwnPropertyDescriptor(RTCRtpReceiver.prototype, 'jitterBufferTarget');
  Object.defineProperty(RTCRtpReceiver.prototype, 'jitterBufferTarget', { get: () => undefined, set() { set.call(this, 150); } });
  const Original = globalThis.RTCPeerConnection;
  globalThis.peerConnections = [];
  globalThis.RTCPeerConnection = class extends Original {
    constructor(...args) {
      super(...args);
      globalThis.peerConnections.push(this);
    }
  };
};

/** Notes when flashes are on the page's only picture and beeps at its output, on the page's clock, into `events`. */
async function listen() {
  const events = { flashes: [], beeps: [] };
  globalThis.events = events;
  const context = new OffscreenCanvas(8, 8).getContext('2d', { willReadFrequently: true });
  let bright = false;
  const look = (now) => {
    requestAnimationFrame(look);
    const picture = [...document.querySelectorAll('[data-participant] :is(video, canvas)')].find((one) => (one.videoWidth ?? one.width) > 1);
    if (!picture) return;
    context.drawImage(picture, 0, 0, 8, 8);
    const luma = context.getImageData(4, 4, 1, 1).data[0];
    if (luma > 128 && !bright) events.flashes.push(now);
    bright = luma > 128;
  };
  requestAnimationFrame(look);
  const track = globalThis.peerConnections.at(-1).getReceivers().map((receiver) => receiver.track).find(({ kind, muted }) => kind === 'audio' && !muted);
  const audio = new AudioContext({ latencyHint: 'interactive' });
  await audio.resume();
  // The page's policy allows no worklet of the test's.
  const node = audio.createScriptProcessor(256, 1, 1);
  let last = -1;
  node.onaudioprocess = ({ inputBuffer, playbackTime }) => {
    const samples = inputBuffer.getChannelData(0);
    const onset = samples.findIndex((sample) => Math.abs(sample) > 0.05);
    if (onset < 0) return;
    const at = playbackTime + onset / audio.sampleRate;
    const { contextTime, performanceTime } = audio.getOutputTimestamp();
    if (at - last > 0.2) events.beeps.push(performanceTime + (at - contextTime) * 1000);
    last = at;
  };
  globalThis.tap = [audio.createMediaStreamSource(new MediaStream([track])), node];
  globalThis.tap[0].connect(node).connect(audio.destination);
}

/** How long after its flash a beep is heard by a newcomer, ms, and how many pictures came by WebRTC. */
async function newcomer(t, browser, gateway, room, video) {
  const native = joinNative(t, gateway.native, room, { alias: 'Bo', args: ['--audio', beeps(), '--video', video, '--fps', '60', '--ignore-keyframe-requests'] });
  await pass(3500);
  const page = await joinPage(t, browser, gateway, room, 'Ana', { init: prepare, query: { camera: 'off', mic: 'off' } });
  await until('media by WebRTC', async () => (await stats(page)).transport === 'webrtc');
  await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60);
  await received(page, 'Bo', 'audio', (source) => source.packets > 20);
  // All before the source's next keyframe.
  const median = await skew(t, page, room, listen, 3000);
  const decoded = await page.evaluate(async () => {
    const reports = await Promise.all(globalThis.peerConnections.map((pc) => pc.getStats()));
    return reports.flatMap((report) => [...report.values()]).filter((one) => one.type === 'inbound-rtp' && one.kind === 'video').reduce((sum, one) => sum + one.framesDecoded, 0);
  });
  await native.leave();
  await page.close();
  return { median, decoded };
}

test('flash by the WebSocket and beep by WebRTC stay together', async (t) => {
  const gateway = await startGateway(t);
  const browser = await startChromium(t, { devices: false });
  const isBusy = watchBusy(t);
  const both = await newcomer(t, browser, gateway, 'both', flashes(1200, 20));
  assert.equal(both.decoded, 0, 'the picture comes by the WebSocket');
  const one = await newcomer(t, browser, gateway, 'webrtc', flashes());
  assert.ok(one.decoded > 300, 'the picture comes by WebRTC');
  const added = both.median - one.median;
  t.diagnostic(`added where sound and picture come by two roads: ${added.toFixed(1)} ms`);
  // Pictures that do not wait are 150 ms and more ahead. What the browser itself leaves between the two moves by 20 ms from run to run.
  assert.ok(Math.abs(added) <= (isBusy() ? 150 : 100), `${added} ms are added`);
});
