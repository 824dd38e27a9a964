// WebRTC over bad networks: loss is repaired, and a blocked port is walked around.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { joinNative, pass, startGateway, until, watchBusy } from './gateway.mjs';
import { lossyLink } from './link.mjs';
import { h264 } from './media.mjs';

/** How long packets are lost. */
const seconds = Number(process.env.WZP_LOSSY_SECONDS ?? 20);
/** A freeze lasts 0.2 s or more, so that one of them is above a hundredth of 20 s: what is above it is told from a longer time. */
const longer = Math.max(60, seconds);

/** Video statistics of all peer connections that a page has made, from the browser itself. */
async function inbound(page) {
  return page.evaluate(async () => {
    for (const connection of globalThis.peerConnections ?? []) {
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp' && report.kind === 'video' && report.packetsReceived > 0) {
          const { packetsLost, packetsReceived, retransmittedPacketsReceived, framesDecoded, keyFramesDecoded, freezeCount, totalFreezesDuration, pliCount, nackCount } = report;
          const { jitterBufferDelay, jitterBufferTargetDelay } = report;
          return { packetsLost, packetsReceived, retransmittedPacketsReceived, framesDecoded, keyFramesDecoded, freezeCount, totalFreezesDuration, pliCount, nackCount, jitterBufferDelay, jitterBufferTargetDelay };
        }
      }
    }
    return null;
  });
}

/** Remembers the page's peer connections, so that a test can read the browser's own statistics, and which pictures came whole. */
const remember = () => {
  const Original = globalThis.RTCPeerConnection;
  globalThis.peerConnections = [];
  /** RTP timestamps of the pictures that were put together, none of their packets missing any more. */
  globalThis.whole = [];
  globalThis.RTCPeerConnection = class extends Original {
    constructor(configuration = {}) {
      super({ ...configuration, encodedInsertableStreams: true });
      globalThis.peerConnections.push(this);
      const tapped = new WeakSet();
      this.addEventListener('track', ({ receiver, track }) => {
        if (tapped.has(receiver)) return;
        tapped.add(receiver);
        const { readable, writable } = receiver.createEncodedStreams();
        const tap = new TransformStream({
          transform(frame, controller) {
            if (track.kind === 'video') globalThis.whole.push(frame.getMetadata().rtpTimestamp ?? frame.timestamp);
            controller.enqueue(frame);
          },
        });
        void readable.pipeThrough(tap).pipeTo(writable);
      });
    }
  };
};

/** How many pictures are missing between the first and the last of these, by their RTP timestamps at 30 pictures a second. */
function missing(timestamps) {
  const times = timestamps.map((timestamp) => (timestamp - timestamps[0]) | 0).sort((a, b) => a - b);
  return times.slice(1).reduce((count, time, i) => count + Math.max(0, Math.round((time - times[i]) / 3000) - 1), 0);
}

async function viewerBehind(t, link, gateway, query = {}) {
  const browser = await startChromium(t, { executablePath: link.chromium });
  const context = { init: remember, query: { camera: 'off', mic: 'off', ...query } };
  const page = await joinPage(t, browser, gateway, 'lossy', 'Ana', context);
  if (query.transport === 'webrtc') await until('media comes by WebRTC', async () => (await stats(page)).transport === 'webrtc' && (await inbound(page))?.framesDecoded > 30);
  return page;
}

function publisher(t, link, gateway) {
  return joinNative(t, gateway.native, 'lossy', { alias: 'Bo', wrap: link.near, args: ['--audio', 'tone:880', '--video', h264(300), '--fps', '30'] });
}

test('5 % loss at 50 ms: RTX repairs it, and the picture hardly freezes', async (t) => {
  const link = await lossyLink(t, '--delay', '50');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  const native = publisher(t, link, gateway);
  const page = await viewerBehind(t, link, gateway, { transport: 'webrtc' });
  await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60);
  link.set('loss=5');
  // The page notices within a second that packets are lost, and then holds media back for repair.
  await pass(3000);
  const before = await inbound(page);
  await page.evaluate(() => { globalThis.whole.length = 0; });
  const isBusy = watchBusy(t);
  await pass(seconds * 1000);
  const busy = isBusy();
  const after = await inbound(page);
  let frozen = (after.totalFreezesDuration - before.totalFreezesDuration) / seconds;
  if (frozen >= 0.01) {
    await pass((longer - seconds) * 1000);
    frozen = ((await inbound(page)).totalFreezesDuration - before.totalFreezesDuration) / longer;
  }
  link.set('loss=0');
  // Repairs that are under way count too.
  await pass(1000);
  const whole = await page.evaluate(() => globalThis.whole);
  const gained = Object.fromEntries(Object.keys(after).map((key) => [key, after[key] - before[key]]));
  const summary = await native.leave();
  // A lost packet that does not come again takes a picture with it; pictures have few packets, and rarely lose two.
  const unrepaired = missing(whole);
  const repaired = 1 - unrepaired / gained.packetsLost;
  t.diagnostic(JSON.stringify({ ...gained, whole: whole.length, unrepaired, pliToSource: summary.pli.received }));
  // The browser counts a packet that came again as RTX as lost on the stream that it belongs to.
  assert.ok(gained.packetsLost > seconds, `only ${gained.packetsLost} packets were lost`);
  assert.ok(whole.length > 28 * seconds, `${whole.length} whole pictures in ${seconds} s`);
  assert.ok(repaired >= (busy ? 0.97 : 0.99), `${unrepaired} of ${gained.packetsLost} lost packets were not repaired`);
  assert.ok(gained.framesDecoded > 20 * seconds, `${gained.framesDecoded} pictures in ${seconds} s`);
  // A busy machine freezes pictures by itself.
  assert.ok(frozen < (busy ? 0.1 : 0.01), `frozen for ${(100 * frozen).toFixed(1)} % of the time`);
  // Held back for as long as was asked: a replay with wrong times makes the browser's idea of the sender's clock drift.
  const held = gained.jitterBufferDelay / gained.jitterBufferTargetDelay;
  assert.ok(held > 0.85 && held < 1.1, `held back for ${held} of what was asked`);
  assert.ok(gained.keyFramesDecoded < seconds / 2, `${gained.keyFramesDecoded} keyframes in ${seconds} s`);
  await link.stop();
});

test('5 % loss at 150 ms: the picture keeps moving', async (t) => {
  const link = await lossyLink(t, '--delay', '150');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  publisher(t, link, gateway);
  const page = await viewerBehind(t, link, gateway, { transport: 'webrtc' });
  await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60);
  link.set('loss=5');
  for (let times = 0; times < 6; times += 1) {
    const before = (await inbound(page)).framesDecoded;
    await pass(2000);
    const shown = (await inbound(page)).framesDecoded - before;
    assert.ok(shown > 10, `${shown} pictures within 2 s`);
  }
  await link.stop();
});

test('a path below the rate of the picture: it pauses and says why, sound goes on; it comes back with a keyframe', async (t) => {
  const link = await lossyLink(t, '--delay', '10');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  publisher(t, link, gateway);
  const page = await viewerBehind(t, link, gateway, { transport: 'webrtc' });
  const open = await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60 && source.bitrate > 400_000);
  const reason = () => page.evaluate(() => {
    const other = [...globalThis.wzp.room.participants.values()].find((participant) => participant.alias === 'Bo');
    return other?.tracks.find((track) => track.kind === 'video')?.pausedReason ?? '';
  });
  assert.equal(await reason(), '');
  link.set(`rate=${Math.round(open.bitrate / 2000)}`);
  const slow = Date.now();
  await until('the picture is paused', async () => (await reason()) === 'bandwidth', { timeout: 12_000 });
  const pausedAfter = Date.now() - slow;
  const [sound, pictures] = [await received(page, 'Bo', 'audio'), await inbound(page)];
  await pass(2000);
  const packets = (await received(page, 'Bo', 'audio')).packets - sound.packets;
  link.set('rate=0');
  const good = Date.now();
  await until('the picture is there again', async () => (await reason()) === '', { timeout: 12_000 });
  const resumedAfter = Date.now() - good;
  const back = await until('pictures from a keyframe on', async () => {
    const now = await inbound(page);
    return now.keyFramesDecoded > pictures.keyFramesDecoded && now.framesDecoded > pictures.framesDecoded + 30 && now;
  }, { timeout: 10_000 });
  t.diagnostic(`paused after ${pausedAfter} ms, ${packets} packets of sound in 2 s, resumed after ${resumedAfter} ms, ${back.keyFramesDecoded - pictures.keyFramesDecoded} keyframes`);
  assert.ok(packets > 80, `${packets} packets of sound in 2 s`);
  await link.stop();
});

test('UDP blocked: a picture within 4 s, without a click', async (t) => {
  const link = await lossyLink(t, '--delay', '10', '--block-udp');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  publisher(t, link, gateway);
  const page = await viewerBehind(t, link, gateway);
  const seen = await received(page, 'Bo', 'video', (source) => source.framesDecoded > 30);
  t.diagnostic(`first frame after ${seen.firstFrameMs} ms by ${(await stats(page)).transport}`);
  assert.ok(seen.firstFrameMs <= 4000, `first frame after ${seen.firstFrameMs} ms`);
  await link.stop();
});
