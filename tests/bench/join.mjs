// How long a newcomer waits for its first picture, and until what it sees is live: `make bench-join` prints a table with the
// targets, and whether they are met; WZP_CHECK=1 fails if one is not.
//
// The source is a native member with a keyframe every 10 s that answers keyframe requests, and another that ignores them. Its
// pictures carry their number, and it writes down when it sent each one: so the age of what is shown is known.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openPage, startChromium } from '../browser/chromium.mjs';
import { startFirefox } from '../browser/firefox.mjs';
import { binary, joinNative, pass, scratch, startGateway, until } from '../browser/gateway.mjs';
import { numbered } from '../browser/media.mjs';
import { site } from './site.mjs';

const joins = Number(process.env.WZP_JOINS ?? 20);
/** Which rows: a pattern of "viewer, source". */
const only = new RegExp(process.env.WZP_ONLY ?? '.');
/** Each join for itself. */
const dumps = process.env.WZP_MARKS === '1';
/** What is watched after each join, ms. */
const WATCH = 2000;
/** What is shown is live when it is at most this old, and stays so, ms. */
const LIVE_AGE = 150;
/** Of 20 joins the 19th, whether the source answers or not: first picture by kind of viewer, and live, ms. */
const TARGETS = { 'Chromium, WebRTC': 60, 'Chromium, WebSocket': 60, 'Firefox, WebSocket': 100, native: 20 };
const LIVE_TARGET = 300;

const cleanups = [];
const t = { after: (cleanup) => cleanups.push(cleanup), diagnostic: console.error };
/** What could not be measured counts as slowest. */
const quantile = (list, share) => list.map((ms) => (Number.isFinite(ms) ? ms : Infinity)).sort((a, b) => a - b)[Math.ceil(share * list.length) - 1] ?? NaN;
const shown = (ms) => (Number.isFinite(ms) ? ms.toFixed(0) : '–');

/** When each picture was sent, latest last, by its number. */
function sentTimes(file) {
  const times = new Map();
  for (const line of readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
    const [number, at] = line.split(' ').map(Number);
    if (!times.has(number)) times.set(number, []);
    times.get(number).push(at);
  }
  return times;
}

/** From when on the pictures seen were live: ms after the join. `seen`: pairs of time and number. */
function liveAt({ start, seen }, times) {
  const ages = seen.flatMap(([at, number]) => {
    const sent = times.get(number)?.findLast((time) => time <= at);
    return sent === undefined ? [] : [[at, at - sent]];
  });
  const steady = quantile(ages.filter(([at]) => at > start + WATCH - 700).map(([, age]) => age), 0.95);
  const late = ages.findLastIndex(([at, age]) => age > LIVE_AGE && at < start + WATCH - 300);
  return { live: (ages[late + 1]?.[0] ?? NaN) - start, steady };
}

async function inPage(page, gateway, room, transport, trace, source) {
  const results = [];
  for (let i = 0; i < joins; i += 1) {
    await pass(100 + Math.random() * (source === 'answers' ? 5000 : 2500));
    const url = `ws://localhost:${gateway.httpPort}/ws/${room}`;
    const result = await page.evaluate(([url, transport, duration]) => globalThis.watch(url, transport, duration), [url, transport, WATCH]);
    const { live, steady } = liveAt(result, sentTimes(trace));
    if (dumps) console.error(JSON.stringify({ ...result.marks, live, steady, pictures: result.seen.length }));
    results.push({ first: result.first, live, steady, rtp: result.marks.rtp });
  }
  return results;
}

async function natives(gateway, room, source) {
  const results = [];
  for (let i = 0; i < joins; i += 1) {
    await pass(100 + Math.random() * (source === 'answers' ? 5000 : 2500));
    const { connectMs, video } = await joinNative(t, gateway.native, room, { seconds: WATCH / 1000, alias: 'viewer' }).summary;
    results.push({ first: connectMs + video.firstFrameMs, live: connectMs + video.liveMs });
    if (dumps) console.error(JSON.stringify(results.at(-1)));
  }
  return results;
}

async function main() {
  console.error(`gateway: ${binary}${binary.includes('release') ? '' : ' (not a release build: make build)'}; ${joins} joins each`);
  const folder = scratch(t);
  const gateway = await startGateway(t, { args: ['--static-dir', site(folder)] });
  const page = async (name) => {
    const url = gateway.url('bench');
    if (name === 'Chromium') return openPage(t, await startChromium(t, { devices: false }), url);
    const tab = await (await startFirefox(t)).newPage();
    await tab.goto(url);
    return tab;
  };
  const rows = [];
  for (const source of ['answers', 'ignores']) {
    const trace = join(folder, `${source}.txt`);
    const flags = ['--audio', 'tone:440', '--video', numbered(300), '--fps', '30', '--trace-video', trace];
    const publisher = joinNative(t, gateway.native, source, { alias: 'Cam', args: source === 'ignores' ? [...flags, '--ignore-keyframe-requests'] : flags });
    await until('the source sends', () => existsSync(trace) && readFileSync(trace, 'utf8').length > 100);
    await pass(3000);
    const kinds = {
      'Chromium, WebRTC': async () => inPage(await page('Chromium'), gateway, source, 'webrtc', trace, source),
      'Chromium, WebSocket': async () => inPage(await page('Chromium'), gateway, source, 'websocket', trace, source),
      'Firefox, WebSocket': async () => inPage(await page('Firefox'), gateway, source, 'websocket', trace, source),
      native: async () => natives(gateway, source, source),
    };
    for (const [kind, measure] of Object.entries(kinds)) {
      if (!only.test(`${kind}, ${source}`)) continue;
      rows.push({ kind, source, results: await measure() });
      console.error(line(rows.at(-1)));
    }
    await publisher.leave();
  }
  console.log('ms after the call, by a page that called prepare(url) before. A viewer by WebRTC has its first picture from the WebSocket as a rule; "by RTP" is the first of the other way. "age": how old pictures are at the end, p95.');
  console.log(['viewer', 'source', 'first p50', 'p95', 'live p50', 'p95', 'by RTP p50', 'p95', 'age', 'target'].map((cell, i) => (i === 0 ? cell.padEnd(20) : cell.padStart(10))).join(' '));
  for (const row of rows) console.log(line(row));
  const missed = rows.filter((row) => !met(row));
  if (process.env.WZP_CHECK && missed.length > 0) throw new Error(`missed: ${missed.map(({ kind, source }) => `${kind}, source ${source}`).join('; ')}`);
}

const met = ({ kind, results }) => quantile(results.map((one) => one.first), 0.95) <= TARGETS[kind] && quantile(results.map((one) => one.live), 0.95) <= LIVE_TARGET;

function line({ kind, source, results }) {
  const both = (list) => [shown(quantile(list, 0.5)), shown(quantile(list, 0.95))];
  const of = (what) => results.map((one) => one[what]).filter((ms) => ms !== undefined);
  const target = `  ${TARGETS[kind]} and ${LIVE_TARGET}: ${met({ kind, results }) ? 'met' : 'MISSED'}`;
  return [kind.padEnd(20), ...[source, ...both(of('first')), ...both(of('live')), ...both(of('rtp')), shown(quantile(of('steady'), 0.95))].map((cell) => cell.padStart(10))].join(' ') + target;
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
process.exit(0);
