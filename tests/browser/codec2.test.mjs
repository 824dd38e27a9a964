// Voices that browsers cannot decode are heard as the speech that they are: a native on a bad network, and what Chromium plays.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { joinNative, pass, startGateway, until } from './gateway.mjs';
import { correlation, envelope, speech, speechFile } from './media.mjs';

const LISTEN_MS = 9000;
/** Pieces of 3 s are compared, each where it fits best: a clock that drifts is no difference in sound. */
const PIECE = 150;

/** Records what the page plays, by WebRTC or by the worklet, at the times of its audio context. */
const record = () => {
  const { connect } = AudioNode.prototype;
  const taps = new Map();
  AudioNode.prototype.connect = function tapped(...args) {
    if ((this instanceof MediaStreamAudioSourceNode || this instanceof AudioWorkletNode) && !taps.has(this)) {
      const analyser = this.context.createAnalyser();
      analyser.fftSize = 32_768;
      taps.set(this, { analyser, heard: null });
      connect.call(this, analyser);
    }
    return connect.apply(this, args);
  };
  // An analyser keeps the last two thirds of a second: a timer that is late loses nothing.
  setInterval(() => {
    for (const tap of taps.values()) {
      const { analyser } = tap;
      const at = Math.round(analyser.context.currentTime * 48_000) - analyser.fftSize - (globalThis.recordFrom ?? Infinity);
      if (at < 0 || !Number.isFinite(at)) continue;
      tap.heard ??= new Float32Array(48_000 * 30);
      const samples = new Float32Array(analyser.fftSize);
      analyser.getFloatTimeDomainData(samples);
      if (at + samples.length <= tap.heard.length) tap.heard.set(samples, at);
    }
  }, 200);
  globalThis.startRecording = () => {
    for (const tap of taps.values()) {
      tap.heard = null;
      globalThis.recordFrom = Math.round(tap.analyser.context.currentTime * 48_000);
    }
  };
  const power = (samples) => samples.reduce((sum, x) => sum + x * x, 0);
  globalThis.loudestRecording = (from, length) => [...taps.values()].filter((tap) => tap.heard)
    .map((tap) => tap.heard.slice(from, from + length)).sort((a, b) => power(b) - power(a)).map((samples) => [...samples])[0] ?? [];
};

for (const codec of ['codec2-3200', 'codec2-1200', 'opus-6k']) {
  test(`a voice in ${codec} is heard as speech by WebSocket and by WebRTC`, async (t) => {
    const gateway = await startGateway(t);
    const browser = await startChromium(t);
    const original = envelope(speech());
    const native = joinNative(t, gateway.native, 'voice', { alias: 'Cody', args: ['--audio', speechFile(), '--codec', codec] });
    await Promise.all(['ws', 'webrtc'].map(async (transport) => {
      const page = await joinPage(t, browser, gateway, 'voice', transport, { init: record, query: { camera: 'off', mic: 'off', transport } });
      const wanted = transport === 'ws' ? 'websocket' : 'webrtc';
      await until(`sound by ${wanted}`, async () => (await stats(page)).transport === wanted);
      await received(page, 'Cody', 'audio', (source) => source.audioLevel > 0.01);
      await page.evaluate(() => globalThis.startRecording());
      await pass(LISTEN_MS + 1500);
      const heard = envelope(Float32Array.from(await page.evaluate((length) => globalThis.loudestRecording(48_000, length), LISTEN_MS * 48 - 48_000)));
      const found = [];
      for (let at = 0; at + PIECE <= heard.length; at += PIECE / 2) found.push(correlation(heard.slice(at, at + PIECE), [...original, ...original]));
      const median = found.toSorted((a, b) => a - b)[found.length >> 1];
      t.diagnostic(`${codec} by ${wanted}: correlation of the envelope ${median.toFixed(3)} (${found.map((one) => one.toFixed(2)).join(', ')})`);
      assert.ok(median > 0.8, `${median}`);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    }));
    const { sent } = await native.leave();
    assert.ok(sent.audioPackets > 300, JSON.stringify(sent));
  });
}
