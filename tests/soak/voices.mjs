// A long call of many voices: five natives and five browsers in one room, who talk in turn and at random, behind 3 % loss. No
// decoder may refuse anything, and the gateway's memory stays flat.
//
// SOAK_SECONDS (300), SOAK_LOSS (3, per cent), SOAK_DELAY (20, ms one way), SOAK_NATIVES (5), SOAK_PAGES (5).
// Needs root, for tests/lossy-link.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { joinPage, startChromium, stats } from '../browser/chromium.mjs';
import { joinNative, pass, startGateway, until } from '../browser/gateway.mjs';
import { lossyLink } from '../browser/link.mjs';
import { talkFile } from '../browser/media.mjs';

const setting = (name, usual) => Number(process.env[name] ?? usual);
const SECONDS = setting('SOAK_SECONDS', 300);
const [LOSS, DELAY] = [setting('SOAK_LOSS', 3), setting('SOAK_DELAY', 20)];
const [NATIVES, PAGES] = [setting('SOAK_NATIVES', 5), setting('SOAK_PAGES', 5)];
const EVERY_MS = Math.min(10_000, 50 * SECONDS);
/** Pages per browser process. */
const TOGETHER = 2;
const CODECS = [[], ['--codec', 'codec2-3200'], [], ['--codec', 'opus-6k'], ['--codec', 'codec2-1200']];

/** Resident memory of a process, MB. */
const resident = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? NaN;
const between = (least, most) => least + Math.random() * (most - least);

/** Presses the page's mute button at random until `over`; how often. */
async function talkNowAndThen(page, over) {
  let times = 0;
  while (!over()) {
    await page.evaluate(() => document.getElementById('mute').click());
    times += 1;
    await pass(between(2000, 8000));
  }
  return times;
}

test(`${NATIVES} natives and ${PAGES} browsers talk at random for ${SECONDS} s under ${LOSS} % loss`, { timeout: (SECONDS + 240) * 1000 }, async (t) => {
  const link = await lossyLink(t, '--delay', String(DELAY));
  const env = { WZP_LOG: 'wzp_gateway=info,wzp_gateway::room::mixing=debug' };
  const gateway = await startGateway(t, { host: link.host, tls: true, wrap: link.near, env });
  const natives = Array.from({ length: NATIVES }, (_, n) => joinNative(t, gateway.native, 'soak', {
    alias: `native ${n}`, seconds: SECONDS + 600, wrap: link.far, args: ['--audio', talkFile(n), ...CODECS[n % CODECS.length]],
  }));
  const pages = [];
  for (let n = 0; n < PAGES; n++) {
    const browser = n % TOGETHER ? pages.at(-1).browser : await startChromium(t, { executablePath: link.chromium, hz: 300 + 70 * n });
    const transport = ['webrtc', 'ws'][Math.floor(n / TOGETHER) % 2];
    pages.push({ browser, page: await joinPage(t, browser, gateway, 'soak', `page ${n}`, { query: { camera: 'off', transport } }) });
  }
  await until('everybody in the room', () => pages[0].page.evaluate((count) => globalThis.wzp.room.participants.size >= count, NATIVES + PAGES - 1));
  link.set(`loss=${LOSS}`);

  const began = Date.now();
  const over = () => Date.now() - began >= SECONDS * 1000;
  const talking = pages.map(({ page }) => talkNowAndThen(page, over));
  const samples = [];
  while (!over()) {
    samples.push({ at: (Date.now() - began) / 1000, megabytes: resident(gateway.child.pid) });
    t.diagnostic(`${samples.at(-1).at.toFixed(0)} s: ${samples.at(-1).megabytes.toFixed(1)} MB`);
    await pass(EVERY_MS);
  }
  const pressed = await Promise.all(talking);
  link.set('loss=0');
  // Whoever lost his connection on the bad path has it again.
  const voices = ({ sources }) => sources.filter((source) => source.kind === 'audio');
  const heard = await Promise.all(pages.map(({ page }, n) => until(`every voice at page ${n}`, async () => {
    const now = await stats(page);
    if (voices(now).length < NATIVES + PAGES - 1) throw new Error(JSON.stringify({ ...now, state: await page.evaluate(() => globalThis.wzp.room.state) }));
    return now;
  }, { timeout: 30_000 })));
  const summaries = await Promise.all(natives.map((native) => native.leave()));
  for (const { page } of pages) await page.context().close();
  await pass(1000);
  await gateway.stop();
  await link.stop();

  for (const [n, { audio, malformed, sent }] of summaries.entries()) {
    t.diagnostic(`native ${n} (${CODECS[n % CODECS.length][1] ?? 'opus'}): sent ${sent.audioPackets}; got ${audio.packets}, ${audio.lost} lost, ${audio.disordered} out of order, ${audio.undecodable} undecodable`);
    assert.deepEqual([audio.undecodable, malformed], [0, 0]);
    assert.ok(audio.packets > 10 * SECONDS, `native ${n} got ${audio.packets} packets`);
  }
  for (const [n, { page }] of pages.entries()) {
    const { transport, sources } = heard[n];
    const sounds = voices({ sources });
    t.diagnostic(`page ${n} (${transport}): ${sounds.length} voices, ${sounds.reduce((sum, one) => sum + one.packets, 0)} packets, ${sounds.reduce((sum, one) => sum + one.lost, 0)} lost; muted and unmuted ${pressed[n]} times; ${page.problems.length} problems`);
    assert.deepEqual(page.problems, []);
    assert.equal(sounds.reduce((sum, one) => sum + one.decodeErrors, 0), 0, `page ${n} could not decode`);
  }
  const unusual = gateway.log.filter((line) => / WARN | ERROR |resumed=true|end=(?!Left)/.test(line));
  t.diagnostic(`of note in the gateway's log: ${unusual.length ? `\n${unusual.join('\n')}` : 'nothing'}`);
  const counts = JSON.parse(/native door is closed counts=(\{.*?\})/.exec(gateway.log.join('\n'))[1]);
  t.diagnostic(`gateway: ${JSON.stringify(counts)}`);
  const mixes = [...gateway.log.join('\n').matchAll(/a mix ends work=Work \{ decoded: (\d+), encoded: (\d+), undecodable: (\d+), concealed: \d+ \}/g)];
  t.diagnostic(`mixes: ${mixes.map((mix) => `${mix[1]} blocks decoded, ${mix[2]} packets encoded, ${mix[3]} undecodable`).join('; ')}`);
  assert.ok(mixes.length > 0, 'no mix was logged');
  for (const mix of mixes) assert.equal(mix[3], '0');
  for (const name of ['malformed_in', 'audio_malformed_in', 'audio_repair_refused_in', 'over_rate_in', 'violations', 'audio_dropped_size']) assert.equal(counts[name] ?? 0, 0, name);

  // Of five minutes the second and the last: what grows while everybody comes and caches fill is not counted.
  const part = (from, to) => median(samples.filter(({ at }) => at >= from * SECONDS && at < to * SECONDS).map(({ megabytes }) => megabytes));
  const [early, late] = [part(0.2, 0.4), part(0.8, 1)];
  t.diagnostic(`memory: ${early.toFixed(1)} MB in the second fifth, ${late.toFixed(1)} MB in the last: ${((late / early - 1) * 100).toFixed(1)} %`);
  assert.ok(late <= 1.1 * early, `memory grows from ${early} to ${late} MB`);
});
