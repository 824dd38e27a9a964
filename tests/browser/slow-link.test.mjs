// A viewer whose network carries half of what is sent.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { received, startChromium, joinPage, stats } from './chromium.mjs';
import { end, joinNative, pass, repository, scratch, startGateway } from './gateway.mjs';
import { h264 } from './media.mjs';

/** Two namespaces with a link between them; `set('rate=400')` changes it while it runs. */
export async function lossyLink(t, ...options) {
  const folder = scratch(t);
  const id = `${process.pid}`;
  const [near, far] = [`n${id}`, `f${id}`];
  const ready = join(folder, 'ready');
  const child = spawn(join(repository, 'tests/lossy-link'), [
    '--near-name', near, '--far-name', far, ...options, '--', 'sh', '-c', `echo "$LOSSY_LINK" > ${ready}.new; mv ${ready}.new ${ready}; exec sleep 3600`,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  let report = '';
  child.stderr.on('data', (data) => { report += data; });
  t.after(() => end(child));
  const { until } = await import('./gateway.mjs');
  const { readFileSync, existsSync } = await import('node:fs');
  await until('the link', () => existsSync(ready) || (child.exitCode !== null && Promise.reject(new Error(report))));
  const socket = readFileSync(ready, 'utf8').trim();
  // A browser behind the link: a script that starts it in the far namespace.
  const script = join(folder, 'chromium');
  writeFileSync(script, `#!/bin/sh\nexec ip netns exec ${far} /usr/bin/chromium "$@"\n`);
  chmodSync(script, 0o755);
  return {
    near: ['ip', 'netns', 'exec', near],
    far: ['ip', 'netns', 'exec', far],
    host: '10.77.0.1',
    chromium: script,
    set: (line) => execFileSync('nc', ['-N', '-U', socket], { input: `${line}\n` }),
    stop: async () => { await end(child); await once(child, 'close').catch(() => {}); return report; },
  };
}

test('half the rate: the far camera stays within half a second, sound goes on', async (t) => {
  const link = await lossyLink(t, '--delay', '10');
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near });
  joinNative(t, gateway.native, 'slow', { alias: 'Bo', wrap: link.near, args: ['--audio', 'tone:880', '--video', h264(30), '--fps', '30'] });
  const browser = await startChromium(t, { executablePath: link.chromium });
  const page = await joinPage(t, browser, gateway, 'slow', 'Ana', { query: { transport: 'ws', camera: 'off', mic: 'off' } });
  await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60);
  link.set('rate=420');
  await pass(3000);
  const delays = [];
  const before = await stats(page);
  const soundBefore = before.sources.find((source) => source.kind === 'audio');
  for (let i = 0; i < 100; i += 1) {
    const now = await stats(page);
    delays.push(now.sources.find((source) => source.kind === 'video').delayMs);
    await pass(200);
  }
  const after = await stats(page);
  const [sound, picture] = ['audio', 'video'].map((kind) => after.sources.find((source) => source.kind === kind));
  const pictureBefore = before.sources.find((source) => source.kind === 'video');
  delays.sort((a, b) => a - b);
  const p99 = delays[Math.floor(delays.length * 0.99) - 1];
  const packets = sound.packets - soundBefore.packets;
  t.diagnostic(`delay p50 ${delays[50]} ms, p99 ${p99} ms; ${packets} sound packets; ${picture.framesDecoded - pictureBefore.framesDecoded} pictures in 20 s`);
  assert.ok(p99 <= 500, `delay p99 ${p99} ms`);
  assert.ok(packets > 0.99 * 50 * 20, `${packets} sound packets in 20 s`);
  assert.ok(picture.framesDecoded > pictureBefore.framesDecoded + 20, 'the picture stands still');
});
