// A viewer whose network carries half of what is sent.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { publishClock, quantile, takeAges, watchClock } from './barcode.mjs';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { pass, startGateway } from './gateway.mjs';
import { lossyLink } from './link.mjs';

test('half the rate: what one sees of the far camera is no older than half a second, sound goes on', async (t) => {
  const link = await lossyLink(t, '--delay', '10');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  const [here, there] = [await startChromium(t, { hz: 880, executablePath: link.nearChromium }), await startChromium(t, { executablePath: link.chromium })];
  const sender = await joinPage(t, here, gateway, 'slow', 'Bo', { query: { transport: 'ws', camera: 'off' } });
  await publishClock(sender);
  const page = await joinPage(t, there, gateway, 'slow', 'Ana', { query: { transport: 'ws', camera: 'off', mic: 'off' } });
  await watchClock(page, 'Bo');
  const open = await received(page, 'Bo', 'video', (source) => source.framesDecoded > 150 && source.bitrate > 500_000);
  link.set(`rate=${Math.round(open.bitrate / 2000)}`);
  await pass(10_000);
  await takeAges(page);
  const before = (await stats(page)).sources.find((source) => source.kind === 'audio');
  await pass(30_000);
  const ages = await takeAges(page);
  const after = (await stats(page)).sources.find((source) => source.kind === 'audio');
  const [packets, concealed] = [after.packets - before.packets, after.freezeMs - before.freezeMs];
  const [p50, p99] = [quantile(ages, 0.5), quantile(ages, 0.99)];
  t.diagnostic(`${Math.round(open.bitrate / 1000)} kbit/s on half: age p50 ${p50} ms, p99 ${p99} ms; ${ages.length} pictures, ${packets} sound packets, ${concealed} ms concealed in 30 s`);
  // Both browsers, encoder and decoder share the machine with the link: it is judged by WZP_AGE_P99=500 where nothing else runs.
  assert.ok(p99 <= Number(process.env.WZP_AGE_P99 ?? 900), `pictures are ${p99} ms old at p99`);
  assert.ok(ages.length > 60, `${ages.length} pictures in 30 s`);
  assert.ok(packets >= 0.97 * 50 * 30, `${packets} sound packets in 30 s`);
});
