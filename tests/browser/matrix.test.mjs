// Who hears and sees whom: real browsers, natives and pages that send samples, over every way.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import WebSocket from 'ws';
import { joinPage, memberId, moves, people, received, startChromium, stats } from './chromium.mjs';
import { joinFirefox, startFirefox } from './firefox.mjs';
import { joinNative, pass, scratch, startGateway, until } from './gateway.mjs';
import { h264, pictures, samples, strength } from './media.mjs';

/** What the senders' microphones give. Firefox's is built in. */
const HZ = { Chromium: 660, Firefox: 1000, Native: 880, Samples: 520, Sockets: 1140 };
const WATCH_MS = 2000;
/** Pictures that have to follow within 20 s. The rate is printed, not tested: it is the machine's, which codes everything at once. */
const FRAMES = 30;

const rows = [];
const near = (hz, wanted) => Math.abs(hz - wanted) <= 12;
/** Whether this browser can have H.264 by WebRTC. */
const hasH264 = (page) => page.evaluate(() => RTCRtpReceiver.getCapabilities('video').codecs.some((codec) => codec.mimeType === 'video/H264'));

/** How a page gets a member's picture and sound. */
const ways = (page, alias) => page.evaluate((name) => {
  const other = [...globalThis.wzp.room.participants.values()].find((participant) => participant.alias === name);
  // By the WebSocket it is a canvas, or in Chromium a video of what the page's own worker writes.
  const written = (element) => element.srcObject?.getVideoTracks().some((track) => globalThis.MediaStreamTrackGenerator && track instanceof globalThis.MediaStreamTrackGenerator);
  return other.tracks.filter((track) => track.kind === 'video').map(({ element }) => (element?.localName === 'video' && !written(element) ? 'webrtc' : 'websocket'))[0];
}, alias);

/** Each page hears and sees its senders; everything is watched during the same seconds. */
async function watch(t, pairs) {
  for (const { page, from } of pairs) await received(page, from, 'audio', (source) => near(source.dominantHz, HZ[from]) && source.audioLevel > 0.02);
  const before = [];
  for (const { page, from, video } of pairs) before.push(video && await received(page, from, 'video', (source) => source.framesDecoded > 5 && source.width > 0));
  await pass(WATCH_MS);
  for (const [index, { page, to, from, video, sound, picture, codec }] of pairs.entries()) {
    const { transport } = await stats(page);
    const heard = await received(page, from, 'audio', (source) => near(source.dominantHz, HZ[from]));
    const seen = video && await received(page, from, 'video');
    const frames = seen ? seen.framesDecoded - before[index].framesDecoded : 0;
    const way = seen ? await ways(page, from) : '';
    const moving = seen && await moves(page, await memberId(page, from));
    rows.push([from, to, `${heard.codec} ${transport}`, `${heard.dominantHz.toFixed(1)} Hz`, seen ? `${seen.codec} ${way}` : 'none', seen ? `${seen.width}x${seen.height}` : '', `${frames}${moving ? ', moves' : ''}`]);
    assert.equal(transport, sound, `how ${to} hears ${from}`);
    if (!video) continue;
    assert.equal(way, picture ?? sound, `how ${to} sees ${from}`);
    if (codec) assert.equal(seen.codec, codec);
    await received(page, from, 'video', (source) => source.framesDecoded >= before[index].framesDecoded + FRAMES);
    assert.ok(moving, `${to} sees a still picture of ${from}`);
    assert.ok(seen.width >= 160 && seen.height >= 90, `${seen.width}x${seen.height}`);
  }
}

/** An older page: samples both ways, nothing else. What it hears is kept. */
async function joinSamples(t, gateway, room, hz) {
  const socket = new WebSocket(gateway.url(room).replace('http', 'ws').replace(`/${room}`, `/ws/${room}`));
  t.after(() => socket.terminate());
  const heard = [];
  const texts = [];
  socket.on('message', (data, binary) => (binary ? heard.push(data) : texts.push(JSON.parse(data.toString()))));
  await once(socket, 'open');
  await until('it is let in', () => texts[0]?.type === 'auth_ok');
  let sent = 0;
  const began = performance.now();
  // By the clock, so that a busy machine does not make it slower than 50 messages a second.
  const timer = setInterval(() => {
    for (; sent * 20 < performance.now() - began; sent++) {
      const message = Buffer.alloc(1920);
      for (let i = 0; i < 960; i++) message.writeInt16LE(Math.round(8000 * Math.sin((2 * Math.PI * hz * (sent * 960 + i)) / 48_000)), 2 * i);
      socket.send(message);
    }
  }, 20);
  t.after(() => clearInterval(timer));
  /** What it has heard since the last call. */
  const take = () => {
    const messages = heard.splice(0);
    assert.ok(messages.every((message) => message.length === 1920));
    const data = Float32Array.from({ length: 960 * messages.length }, (_, i) => messages[Math.floor(i / 960)].readInt16LE(2 * (i % 960)) / 32_768);
    return { messages, data };
  };
  return { take, texts };
}

/** The matrix, as diagnostics of the test. */
function print(t) {
  const head = ['from', 'to', 'sound', 'heard', 'picture', 'size', `frames in ${WATCH_MS / 1000} s`];
  const widths = head.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column].length)));
  for (const row of [head, ...rows]) t.diagnostic(row.map((cell, column) => cell.padEnd(widths[column])).join('  ').trimEnd());
  t.diagnostic('aiortc by WHIP and WHEP: gateway/tests/whip_peers.rs; the crate webrtc: gateway/tests/webrtc_crate.rs; werift: whip.test.mjs; two Chromiums and a native: call.test.mjs');
}

test('Firefox, Chromium, natives and pages that send samples hear and see each other', async (t) => {
  const gateway = await startGateway(t);
  const [firefox, chromium, other] = await Promise.all([startFirefox(t), startChromium(t, { hz: HZ.Chromium }), startChromium(t, { hz: HZ.Sockets })]);
  t.after(() => print(t));
  const both = async (t, room, fox, chrome) => {
    const one = await joinFirefox(t, firefox, gateway, room, 'Firefox', { query: { transport: fox } });
    const two = await joinPage(t, chromium, gateway, room, 'Chromium', { query: { transport: chrome } });
    t.after(async () => { await one.close(); await two.context().close(); });
    return [one, two];
  };
  const connected = (page, transport) => until(`media by ${transport}`, async () => {
    const now = await stats(page);
    if (now.transport !== transport) throw new Error(`${now.transport}: ${now.transportReason}`);
    return true;
  });

  await t.test('Firefox and Chromium over WebSocket', async (t) => {
    const [fox, chrome] = await both(t, 'sockets', 'ws', 'ws');
    await watch(t, [
      { page: fox, to: 'Firefox', from: 'Chromium', video: true, sound: 'websocket', codec: 'h264' },
      { page: chrome, to: 'Chromium', from: 'Firefox', video: true, sound: 'websocket' },
    ]);
    assert.deepEqual([...fox.problems, ...chrome.problems], []);
  });

  await t.test('Firefox and Chromium by themselves: WebRTC, but H.264 to a Firefox that lacks it comes by WebSocket', async (t) => {
    const [fox, chrome] = await both(t, 'auto', 'auto', 'auto');
    await connected(fox, 'webrtc');
    await connected(chrome, 'webrtc');
    const h264InWebRtc = await hasH264(fox);
    await watch(t, [
      { page: fox, to: 'Firefox', from: 'Chromium', video: true, sound: 'webrtc', picture: h264InWebRtc ? 'webrtc' : 'websocket', codec: 'h264' },
      { page: chrome, to: 'Chromium', from: 'Firefox', video: true, sound: 'webrtc', codec: h264InWebRtc ? 'h264' : 'av1' },
    ]);
    const { sending } = await stats(fox);
    t.diagnostic(`Firefox sends ${sending.map((sent) => `${sent.codec} ${sent.width}x${sent.height} ${sent.fps} fps`).join(', ')}`);
    assert.deepEqual([...fox.problems, ...chrome.problems], []);
  });

  await t.test('a Firefox with WebRTC and a Chromium with WebSocket', async (t) => {
    const [fox, chrome] = await both(t, 'mixed', 'webrtc', 'ws');
    await connected(fox, 'webrtc');
    const h264InWebRtc = await hasH264(fox);
    await watch(t, [
      { page: fox, to: 'Firefox', from: 'Chromium', video: true, sound: 'webrtc', picture: h264InWebRtc ? 'webrtc' : 'websocket' },
      { page: chrome, to: 'Chromium', from: 'Firefox', video: true, sound: 'websocket' },
    ]);
    assert.deepEqual([...fox.problems, ...chrome.problems], []);
  });

  await t.test('two Chromiums, one of them by WebSocket', async (t) => {
    const one = await joinPage(t, chromium, gateway, 'two', 'Chromium');
    const two = await joinPage(t, other, gateway, 'two', 'Sockets', { query: { transport: 'ws' } });
    t.after(async () => { for (const page of [one, two]) await page.context().close(); });
    await connected(one, 'webrtc');
    await watch(t, [
      { page: one, to: 'Chromium', from: 'Sockets', video: true, sound: 'webrtc', codec: 'h264' },
      { page: two, to: 'Sockets', from: 'Chromium', video: true, sound: 'websocket', codec: 'h264' },
    ]);
    assert.deepEqual([...one.problems, ...two.problems], []);
  });

  for (const who of ['Firefox', 'Chromium']) await t.test(`${who} and a native`, async (t) => {
    const folder = scratch(t);
    const [sound, picture] = [join(folder, 'sound.ogg'), join(folder, 'picture.h264')];
    const room = `native-${who}`;
    const page = who === 'Firefox'
      ? await joinFirefox(t, firefox, gateway, room, who)
      : await joinPage(t, chromium, gateway, room, who);
    t.after(() => (who === 'Firefox' ? page.close() : page.context().close()));
    const native = joinNative(t, gateway.native, room, {
      alias: 'Native', args: ['--audio', `tone:${HZ.Native}`, '--video', h264(30), '--record-audio', sound, '--record-video', picture],
    });
    await connected(page, 'webrtc');
    const decodes = who === 'Chromium';
    // High profile goes out under constrained baseline, which is all that Chromium offers.
    const high = decodes && joinNative(t, gateway.native, room, { alias: 'High', args: ['--video', h264(30, '640x360', '800k', 'high')] });
    if (high) {
      const seen = await received(page, 'High', 'video', (source) => source.framesDecoded > FRAMES && source.width === 640);
      assert.equal(await ways(page, 'High'), 'webrtc');
      rows.push(['High', who, '', '', `${seen.codec} webrtc`, `${seen.width}x${seen.height}`, `${seen.framesDecoded} in all`]);
      await high.leave();
    }
    await watch(t, [{ page, to: who, from: 'Native', video: true, sound: 'webrtc', picture: decodes ? 'webrtc' : 'websocket', codec: 'h264' }]);
    const sends = (await stats(page)).sending.find((sent) => sent.kind === 'video').codec;
    const summary = await native.leave();
    const heard = samples(sound).subarray(-3 * 48_000, -24_000);
    const level = strength(heard.subarray(0, 24_000), HZ[who]);
    // Natives decode H.264 only.
    const seen = sends === 'h264' ? pictures(picture) : { decoded: 0, different: 0 };
    rows.push([who, 'Native', 'opus quic', `${HZ[who]} Hz at ${level.toFixed(2)}`, sends === 'h264' ? 'h264 quic' : `none (${sends})`, '', `${seen.decoded} in all`]);
    assert.ok(level > 0.03, `${HZ[who]} Hz at ${level}`);
    if (sends === 'h264') assert.ok(seen.decoded > 30 && seen.different > 0.8 * seen.decoded, JSON.stringify(seen));
    assert.equal(summary.video.gaps, 0);
    assert.deepEqual(page.problems, []);
  });

  await t.test('a page that sends samples and Chromium', async (t) => {
    const page = await joinPage(t, chromium, gateway, 'samples', 'Chromium');
    t.after(() => page.context().close());
    const older = await joinSamples(t, gateway, 'samples', HZ.Samples);
    const alias = await until('its name', async () => (await people(page)).find((name) => name !== 'Chromium'));
    await connected(page, 'webrtc');
    const heard = await received(page, alias, 'audio', (source) => near(source.dominantHz, HZ.Samples) && source.audioLevel > 0.1);
    rows.push(['Samples', 'Chromium', `${heard.codec} webrtc`, `${heard.dominantHz.toFixed(1)} Hz`, 'none', '', '0']);
    older.take();
    await pass(WATCH_MS);
    const { messages, data } = older.take();
    const level = strength(data.subarray(-24_000), HZ.Chromium);
    const seconds = WATCH_MS / 1000;
    // 50 a second; the microphone of a Chromium that gets too little processor has gaps.
    rows.push(['Chromium', 'Samples', `pcm websocket, ${messages.length} in ${WATCH_MS / 1000} s`, `${HZ.Chromium} Hz at ${level.toFixed(2)}`, 'none', '', '0']);
    assert.ok(messages.length > 33 * seconds && messages.length < 50 * seconds + 15, `${messages.length} messages in ${WATCH_MS} ms`);
    assert.ok(level > 0.1, `${HZ.Chromium} Hz at ${level}`);
    assert.ok(strength(data.subarray(-24_000), HZ.Samples) < 0.01, 'it hears itself');
    assert.deepEqual(older.texts.map((text) => text.type), ['auth_ok']);
    assert.deepEqual(page.problems, []);
  });

  await t.test('a page that sends samples is heard by natives and by browsers either way, and hears all of them', async (t) => {
    const sound = join(scratch(t), 'sound.ogg');
    const quiet = { camera: 'off' };
    const rtc = await joinPage(t, chromium, gateway, 'all', 'Chromium', { query: { ...quiet, transport: 'webrtc' } });
    t.after(() => rtc.context().close());
    const sockets = await joinPage(t, other, gateway, 'all', 'Sockets', { query: { ...quiet, transport: 'ws' } });
    await connected(rtc, 'webrtc');
    const older = await joinSamples(t, gateway, 'all', HZ.Samples);
    const alias = await until('its name', async () => (await people(rtc)).find((name) => !['Chromium', 'Sockets'].includes(name)));
    const native = joinNative(t, gateway.native, 'all', { alias: 'Native', args: ['--audio', `tone:${HZ.Native}`, '--record-audio', sound] });
    for (const [page, transport] of [[rtc, 'webrtc'], [sockets, 'websocket']]) {
      const heard = await received(page, alias, 'audio', (source) => near(source.dominantHz, HZ.Samples) && source.audioLevel > 0.1);
      assert.equal((await stats(page)).transport, transport);
      rows.push(['Samples', transport === 'webrtc' ? 'Chromium' : 'Sockets', `${heard.codec} ${transport}`, `${heard.dominantHz.toFixed(1)} Hz`, 'none', '', '0']);
    }
    // Only what came since all of them were there counts.
    await until('all of them in what it hears', async () => {
      await pass(1000);
      const { data } = older.take();
      const levels = [HZ.Chromium, HZ.Sockets, HZ.Native].map((hz) => strength(data, hz));
      const own = strength(data, HZ.Samples);
      if (!levels.every((level) => level > 0.1) || own > 0.02) throw new Error(`levels ${levels}, its own ${own}`);
      rows.push(['all', 'Samples', 'pcm websocket', levels.map((level) => level.toFixed(2)).join(', '), 'none', '', '0']);
      return true;
    }, { timeout: 30_000 });
    const { audio } = await native.leave();
    const recorded = samples(sound).subarray(-3 * 48_000, -24_000);
    const levels = [HZ.Samples, HZ.Chromium, HZ.Sockets].map((hz) => strength(recorded, hz));
    rows.push(['all', 'Native', 'opus quic', levels.map((level) => level.toFixed(2)).join(', '), 'none', '', '0']);
    assert.ok(levels.every((level) => level > 0.1), `${levels}`);
    assert.deepEqual([audio.lost, audio.duplicates, audio.undecodable], [0, 0, 0]);
    assert.deepEqual([...rtc.problems, ...sockets.problems], []);
  });
});
