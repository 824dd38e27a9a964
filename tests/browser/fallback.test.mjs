// A browser whose WebRTC never connects must be heard and seen all the same, at once and without a click.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { startGateway, until } from './gateway.mjs';

/** Leaves the page without any usable candidate: there is no TURN server. */
const relayOnly = () => {
  const Original = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Original {
    constructor(configuration = {}) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
    }
  };
};

test('WebRTC that never connects costs nobody a word or a picture', async (t) => {
  const gateway = await startGateway(t);
  const [one, two] = [await startChromium(t, { hz: 440 }), await startChromium(t, { hz: 660 })];
  const ana = await joinPage(t, one, gateway, 'fallback', 'Ana', { init: relayOnly });
  const bo = await joinPage(t, two, gateway, 'fallback', 'Bo');
  for (let look = 0; look < 3; look += 1) {
    const [sound, picture] = [await received(bo, 'Ana', 'audio'), await received(bo, 'Ana', 'video')];
    await received(bo, 'Ana', 'audio', (now) => now.packets > sound.packets + 100 && Math.abs(now.dominantHz - 440) < 8);
    await received(bo, 'Ana', 'video', (now) => now.framesDecoded > picture.framesDecoded + 30);
  }
  await received(ana, 'Bo', 'audio', (now) => Math.abs(now.dominantHz - 660) < 8);
  await received(ana, 'Bo', 'video', (now) => now.framesDecoded > 30);
  assert.equal((await stats(ana)).transport, 'websocket');
  assert.equal((await stats(bo)).transport, 'webrtc');
});

/** As on a device that takes its time. */
const slow = () => {
  const set = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
    await new Promise((resolve) => setTimeout(resolve, 5000));
    return set.call(this, description);
  };
};

test('WebRTC that connects late takes over after all', async (t) => {
  const gateway = await startGateway(t);
  const [one, two] = [await startChromium(t, { hz: 440 }), await startChromium(t, { hz: 660 })];
  const ana = await joinPage(t, one, gateway, 'late', 'Ana', { init: slow });
  await until('the page says that WebRTC takes long', async () => (await stats(ana)).transportReason.includes('did not connect in time'));
  const bo = await joinPage(t, two, gateway, 'late', 'Bo');
  await until('media by WebRTC', async () => (await stats(ana)).transport === 'webrtc');
  const [sound, picture] = [await received(bo, 'Ana', 'audio'), await received(bo, 'Ana', 'video')];
  await received(bo, 'Ana', 'audio', (now) => now.packets > sound.packets + 100 && Math.abs(now.dominantHz - 440) < 8);
  await received(bo, 'Ana', 'video', (now) => now.framesDecoded > picture.framesDecoded + 30);
  await received(ana, 'Bo', 'audio', (now) => Math.abs(now.dominantHz - 660) < 8);
  await received(ana, 'Bo', 'video', (now) => now.framesDecoded > 30);
  assert.deepEqual([...ana.problems, ...bo.problems], []);
});
