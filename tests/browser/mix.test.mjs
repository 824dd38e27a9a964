// Five in one room, each with a tone of its own: everybody hears everybody else, at the right level, and never himself.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { joinNative, pass, scratch, startGateway, watchBusy } from './gateway.mjs';
import { samples, strength } from './media.mjs';

const RATE = 48_000;
/** Every tone is sent with a quarter of full scale. */
const SENT = 0.25;
const natives = { Bo: 440, Cy: 660, Di: 880 };
const browsers = { Ana: 1100, Ed: 1320 };
const all = { ...natives, ...browsers };
/** How long all of them are listened to; WZP_MIX_SECONDS=60 is the long form. */
const STEADY_MS = 1000 * Number(process.env.WZP_MIX_SECONDS ?? 10);
const decibels = (level) => 20 * Math.log10(Math.max(level, 1e-6) / SENT);

/**
 * The level of a tone: the median over pieces of 0.1 s, in which a concealed packet of a busy machine, which shifts the phase, or a
 * clock that drifts does not count as faintness.
 */
function level(data, hz) {
  const piece = RATE / 10;
  const levels = Array.from({ length: Math.floor(data.length / piece) }, (_, i) => strength(data.subarray(i * piece, (i + 1) * piece), hz));
  return levels.sort((a, b) => a - b)[levels.length >> 1];
}

test('three natives and two browsers each hear every other tone within 3 dB, and not their own', async (t) => {
  const folder = scratch(t);
  const gateway = await startGateway(t);
  const pages = {};
  for (const [name, hz] of Object.entries(browsers)) {
    // A camera says nothing here, and pictures would take the processor from the sound.
    pages[name] = await joinPage(t, await startChromium(t, { hz }), gateway, 'mix', name, { query: { camera: 'off' } });
  }
  const recording = (name) => join(folder, `${name}.ogg`);
  const members = Object.entries(natives).map(([name, hz]) =>
    [name, joinNative(t, gateway.native, 'mix', { alias: name, args: ['--audio', `tone:${hz}`, '--record-audio', recording(name)] })]);

  for (const [to, page] of Object.entries(pages)) {
    for (const [from, hz] of Object.entries(all)) {
      if (from === to) continue;
      const heard = await received(page, from, 'audio', (source) => Math.abs(source.dominantHz - hz) <= 12 && Math.abs(decibels(source.audioLevel * Math.SQRT2)) <= 3);
      t.diagnostic(`${to} hears ${from}: ${heard.dominantHz.toFixed(1)} Hz, ${decibels(heard.audioLevel * Math.SQRT2).toFixed(1)} dB`);
    }
    const { sources } = await stats(page);
    assert.ok(!sources.some((source) => source.alias === to), `${to} gets his own sound back`);
    assert.ok(sources.every((source) => source.decodeErrors === 0), `${to} could not decode ${JSON.stringify(sources)}`);
  }
  // Whoever comes now has nothing but the mix of all of them.
  const listener = joinNative(t, gateway.native, 'mix', { alias: 'Fy' });
  const isBusy = watchBusy(t);
  await pass(STEADY_MS);
  const steady = (await listener.leave()).audio;
  const rate = (1000 * (steady.packets - 1)) / (steady.lastMs - steady.firstMs);
  t.diagnostic(`Fy gets ${rate.toFixed(2)} packets a second, longest pause ${steady.longestPauseMs} ms`);
  assert.deepEqual([steady.lost, steady.duplicates, steady.disordered, steady.undecodable], [0, 0, 0, 0]);
  // A mix that does not get the processor cannot keep its pace.
  const busy = isBusy();
  assert.ok(Math.abs(rate - 50) <= (busy ? 5 : 1), `${rate} packets a second`);
  assert.ok(steady.longestPauseMs <= (busy ? 1000 : 120), `${steady.longestPauseMs} ms without a packet`);
  const summaries = await Promise.all(members.map(async ([name, member]) => [name, await member.leave()]));
  for (const [name, { audio }] of summaries) {
    const steady = samples(recording(name)).subarray(-(STEADY_MS - 1000) * 48, -RATE);
    const levels = Object.entries(all).map(([from, hz]) => [from, decibels(level(steady, hz))]);
    t.diagnostic(`${name} hears ${levels.map(([from, db]) => `${from} ${db.toFixed(1)} dB`).join(', ')}; ${audio.packets} packets, ${audio.lost} lost, ${audio.duplicates} twice, longest pause ${audio.longestPauseMs} ms`);
    for (const [from, db] of levels) {
      if (from === name) assert.ok(db < -20, `${name} hears himself, ${db.toFixed(1)} dB`);
      else assert.ok(Math.abs(db) <= 3, `${name} hears ${from} at ${db.toFixed(1)} dB`);
    }
    assert.deepEqual([audio.lost, audio.duplicates, audio.disordered, audio.undecodable], [0, 0, 0, 0]);
  }
  for (const page of Object.values(pages)) assert.deepEqual(page.problems, []);
});
