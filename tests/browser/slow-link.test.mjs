// A viewer whose network carries half of what is sent, and then all of it again. `make perf` stays longer.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { publishClock, quantile, takeAges, watchClock } from './barcode.mjs';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { pass, startGateway } from './gateway.mjs';
import { lossyLink } from './link.mjs';

const seconds = Number(process.env.WZP_SLOW_SECONDS ?? 20);
/** This time after the link is good again it is looked how things stand, ms. */
const RECOVERY = 2000;

/** Memory that a process holds, MB. */
const memory = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;

test('half the rate: what one sees of the far camera is no older than half a second, sound goes on; then it recovers', async (t) => {
  const link = await lossyLink(t, '--delay', '10');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  const [here, there] = [await startChromium(t, { hz: 880, executablePath: link.nearChromium }), await startChromium(t, { executablePath: link.chromium })];
  const sender = await joinPage(t, here, gateway, 'slow', 'Bo', { query: { transport: 'ws', camera: 'off' } });
  await publishClock(sender);
  const page = await joinPage(t, there, gateway, 'slow', 'Ana', { query: { transport: 'ws', camera: 'off', mic: 'off' } });
  await watchClock(page, 'Bo');
  const open = await received(page, 'Bo', 'video', (source) => source.framesDecoded > 150 && source.bitrate > 500_000);
  const begin = Date.now();
  await pass(2000);
  const full = (await stats(page)).sources.find((source) => source.kind === 'video');
  const fps = ((full.framesDecoded - open.framesDecoded) * 1000) / (Date.now() - begin);
  link.set(`rate=${Math.round(open.bitrate / 2000)}`);
  await pass(10_000);
  await takeAges(page);
  const held = memory(gateway.child.pid);
  const before = (await stats(page)).sources.find((source) => source.kind === 'audio');
  await pass(seconds * 1000);
  const ages = await takeAges(page);
  const after = (await stats(page)).sources.find((source) => source.kind === 'audio');
  const grown = memory(gateway.child.pid) - held;
  const [packets, concealed] = [after.packets - before.packets, after.freezeMs - before.freezeMs];
  const [p50, p99] = [quantile(ages, 0.5), quantile(ages, 0.99)];
  t.diagnostic(`${Math.round(open.bitrate / 1000)} kbit/s on half: age p50 ${p50} ms, p99 ${p99} ms; ${ages.length} pictures, ${packets} sound packets, ${concealed} ms concealed in ${seconds} s; the gateway's memory grew by ${grown.toFixed(1)} MB`);

  link.set('rate=0');
  const good = Date.now();
  await pass(RECOVERY);
  await takeAges(page);
  const first = (await stats(page)).sources.find((source) => source.kind === 'video');
  const from = Date.now();
  await pass(2000);
  const last = (await stats(page)).sources.find((source) => source.kind === 'video');
  const again = ((last.framesDecoded - first.framesDecoded) * 1000) / (Date.now() - from);
  const fresh = await takeAges(page);
  t.diagnostic(`from ${from - good} ms after the link is good again: ${again.toFixed(1)} of ${fps.toFixed(1)} pictures a second, ${Math.round(last.bitrate / 1000)} kbit/s, age p50 ${quantile(fresh, 0.5)} ms, p99 ${quantile(fresh, 0.99)} ms`);

  // Both browsers, encoder and decoder share the machine with the link: the figures aimed at are those of `make perf`.
  const strict = process.env.WZP_STRICT === '1';
  const bound = strict ? 500 : 600;
  assert.ok(p99 <= bound, `pictures are ${p99} ms old at p99`);
  assert.ok(ages.length > 2 * seconds, `${ages.length} pictures in ${seconds} s`);
  assert.ok(packets >= 0.97 * 50 * seconds, `${packets} sound packets in ${seconds} s`);
  assert.ok(concealed <= (strict ? 0.01 : 0.02) * 1000 * seconds, `${concealed} ms of sound were concealed`);
  assert.ok(grown < 16, `the gateway's memory grew by ${grown} MB`);
  const recovered = Number(process.env.WZP_RECOVERED ?? 0.6);
  assert.ok(again >= recovered * fps, `${again} pictures a second, ${fps} before`);
  // Pictures cost bits again as before, if the source is let up as fast as it should be.
  assert.ok(last.bitrate >= recovered * open.bitrate, `${last.bitrate} bit/s, ${open.bitrate} before`);
  assert.ok(quantile(fresh, 0.99) <= bound, `pictures are ${quantile(fresh, 0.99)} ms old after the link is good again`);
});
