// Nine cameras of 640×360 at 30 pictures a second, and one Chromium that shows them all: does it keep up on this machine? By
// WebRTC and by WebSocket: pictures decoded of those sent, main thread, and how old the picture of one tile is when it is shown.
//
// TILES_SECONDS (20), TILES (9).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { quantile } from '../browser/barcode.mjs';
import { joinPage, startChromium, stats } from '../browser/chromium.mjs';
import { joinNative, pass, scratch, startGateway, until } from '../browser/gateway.mjs';
import { BITS, numbered } from '../browser/media.mjs';

const SECONDS = Number(process.env.TILES_SECONDS ?? 20);
const TILES = Number(process.env.TILES ?? 9);
const FPS = 30;
/** A picture may be this old, ms: what people take for "at once" in a call. */
const MAX_AGE = 500;

/** Notes when which numbered picture appears in a member's tile. Runs in the page. */
const watchNumbers = (page, alias) => page.evaluate(([alias, bits]) => {
  const small = Object.assign(document.createElement('canvas'), { width: bits * 8, height: 40 });
  const context = small.getContext('2d', { willReadFrequently: true });
  globalThis.shown = [];
  let last = -1;
  const look = () => {
    requestAnimationFrame(look);
    const member = [...globalThis.wzp.room.participants.values()].find((other) => other.alias === alias);
    const element = member && document.querySelector(`[data-participant="${member.id}"]`)?.querySelector('video, canvas');
    if (!element) return;
    context.drawImage(element, 0, 0, small.width, small.height);
    const pixels = context.getImageData(0, 4, small.width, 1).data;
    let [number, parity] = [0, 0];
    for (let bit = 0; bit < bits; bit += 1) {
      const on = pixels[(bit * 8 + 4) * 4 + 1] > 127 ? 1 : 0;
      if (bit < bits - 1) number |= on << bit;
      parity ^= on;
    }
    if (parity !== 0 || number === last) return;
    last = number;
    globalThis.shown.push([number, Date.now()]);
  };
  look();
}, [alias, BITS]);

/** The ages of what was shown, ms, in order; `trace` has the times at which each number was sent. */
function ages(shown, trace) {
  const sent = new Map();
  for (const line of readFileSync(trace, 'utf8').trim().split('\n')) {
    const [number, at] = line.split(/\s+/).map(Number);
    sent.set(number, [...(sent.get(number) ?? []), at]);
  }
  // The file is played in a loop: a number's last time before it was seen is the one that counts.
  return shown.flatMap(([number, at]) => {
    const times = (sent.get(number) ?? []).filter((time) => time <= at);
    return times.length ? [Math.round(at - times.at(-1))] : [];
  });
}

for (const transport of ['webrtc', 'ws']) {
  test(`${TILES} tiles of 360p by ${transport} without falling behind`, { timeout: (SECONDS + 180) * 1000 }, async (t) => {
    const gateway = await startGateway(t);
    const trace = join(scratch(t), 'sent.txt');
    const senders = Array.from({ length: TILES }, (_, n) => joinNative(t, gateway.native, 'tiles', {
      alias: `camera ${n}`, args: ['--video', numbered(60), '--fps', String(FPS), ...(n === 0 ? ['--trace-video', trace] : [])],
    }));
    const browser = await startChromium(t, { devices: false });
    const page = await joinPage(t, browser, gateway, 'tiles', 'viewer', { query: { transport, camera: 'off', mic: 'off' } });
    const pictures = async () => (await stats(page)).sources.filter(({ kind }) => kind === 'video');
    await until('every tile moves', async () => {
      const all = await pictures();
      return all.length === TILES && all.every(({ framesDecoded }) => framesDecoded > FPS);
    }, { timeout: 60_000 });
    const { transport: by } = await stats(page);
    assert.equal(by, transport === 'ws' ? 'websocket' : 'webrtc');

    await watchNumbers(page, 'camera 0');
    const before = await pictures();
    const began = Date.now();
    await pass(SECONDS * 1000);
    const after = await pictures();
    const seconds = (Date.now() - began) / 1000;
    const shown = await page.evaluate(() => globalThis.shown);
    const summaries = await Promise.all(senders.map((sender) => sender.leave()));

    const shares = after.map((source) => {
      const earlier = before.find(({ id }) => id === source.id);
      return (source.framesDecoded - earlier.framesDecoded) / (FPS * seconds);
    });
    const sentPerSecond = summaries.map(({ sent, durationMs }) => (1000 * sent.videoFrames) / durationMs);
    const all = ages(shown, trace);
    const [first, last] = [all.slice(0, all.length >> 1), all.slice(all.length >> 1)].map((half) => half.toSorted((a, b) => a - b));
    t.diagnostic(`sent ${Math.min(...sentPerSecond).toFixed(1)} to ${Math.max(...sentPerSecond).toFixed(1)} pictures a second each; decoded ${(100 * Math.min(...shares)).toFixed(0)} to ${(100 * Math.max(...shares)).toFixed(0)} % of ${FPS}`);
    t.diagnostic(`${all.length} pictures of one tile looked at: age p50 ${quantile(first, 0.5)} ms and p99 ${quantile(first, 0.99)} ms in the first half, ${quantile(last, 0.5)} and ${quantile(last, 0.99)} ms in the second`);
    t.diagnostic(`frozen for ${after.map((source, n) => Math.round(source.freezeMs - before[n].freezeMs)).join(', ')} ms; dropped ${after.map(({ framesDropped }) => framesDropped).join(', ')}`);
    assert.deepEqual(page.problems, []);
    assert.ok(Math.min(...shares) >= 0.9, `a tile had ${shares.map((share) => share.toFixed(2))} of its pictures`);
    assert.ok(all.length > seconds * 5, `${all.length} pictures in ${seconds} s`);
    assert.ok(quantile(last, 0.99) <= MAX_AGE, 'the picture is old');
    assert.ok(quantile(last, 0.5) <= quantile(first, 0.5) + 100, 'the picture gets older and older');
  });
}
