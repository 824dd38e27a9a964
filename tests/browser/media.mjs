// Pictures and sounds for the tests, made by ffmpeg once per machine, and what was recorded, measured.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from './gateway.mjs';

const folder = join(repository, 'target/test-media');

function ffmpeg(...args) {
  return execFileSync('ffmpeg', ['-hide_banner', '-loglevel', 'error', '-nostdin', '-y', ...args], { maxBuffer: 1 << 28 });
}

function made(name, ...args) {
  const path = join(folder, name);
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true });
    const draft = join(folder, `draft-${process.pid}-${name}`);
    ffmpeg(...args, draft);
    renameSync(draft, path);
  }
  return path;
}

/** A moving picture with a running clock, for Chromium's fake camera. */
export const camera = (size = '640x360', seconds = 10) =>
  made(`camera-${size}-${seconds}.mjpeg`, '-f', 'lavfi', '-i', `testsrc2=size=${size}:rate=30`, '-t', String(seconds), '-c:v', 'mjpeg', '-q:v', '4', '-f', 'mjpeg');

/** A tone for Chromium's fake microphone (looped by it). */
export const tone = (hz) =>
  made(`tone-${hz}.wav`, '-f', 'lavfi', '-i', `sine=frequency=${hz}:sample_rate=48000`, '-t', '20', '-af', 'volume=2', '-ac', '1', '-c:a', 'pcm_s16le');

/** An Annex B file for a native sender; `gop` frames from keyframe to keyframe. */
export const h264 = (gop = 30, size = '640x360', bitrate = '800k', profile = 'baseline') =>
  made(`native-${size}-${gop}-${bitrate}${profile === 'baseline' ? '' : `-${profile}`}.h264`, '-f', 'lavfi', '-i', `testsrc2=size=${size}:rate=30`, '-t', '20', '-c:v', 'libx264', '-profile:v', profile, ...(profile === 'baseline' ? [] : ['-x264-params', '8x8dct=1:cabac=1']),
    '-preset', 'veryfast', '-tune', 'zerolatency', '-b:v', bitrate, '-maxrate', bitrate, '-bufsize', bitrate, '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0', '-bf', '0', '-f', 'h264');

/** Fields at the top of a {@link numbered} picture: its number, lowest bit first, and the parity. */
export const BITS = 11;

/** An Annex B file of 20 s whose pictures carry their number as white and black fields; `gop` frames from keyframe to keyframe. */
export const numbered = (gop, size = [640, 360]) => {
  const bit = (n) => `gte(mod(n,${2 ** (n + 1)}),${2 ** n})`;
  const bits = Array.from({ length: BITS - 1 }, (_, n) => bit(n));
  const box = (n, enable) => `drawbox=x=${Math.round((n * size[0]) / BITS)}:y=0:w=${Math.round(size[0] / BITS)}:h=${size[1] * 0.2}:color=white:t=fill:enable='${enable}'`;
  const filters = [`drawbox=x=0:y=0:w=${size[0]}:h=${size[1] * 0.2}:color=black:t=fill`, ...bits.map((on, n) => box(n, on)), box(BITS - 1, `mod(${bits.join('+')},2)`)];
  return made(`numbered-${size.join('x')}-${gop}.h264`, '-f', 'lavfi', '-i', `testsrc2=size=${size.join('x')}:rate=30`, '-t', '20', '-vf', filters.join(','), '-c:v', 'libx264',
    '-profile:v', 'baseline', '-preset', 'veryfast', '-tune', 'zerolatency', '-b:v', '800k', '-maxrate', '800k', '-bufsize', '800k', '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0', '-bf', '0', '-f', 'h264');
};

/** How many pictures of a recording decode, and how many of them differ from the one before. A source may come twice, from its last keyframe on. */
export function pictures(path) {
  const lines = ffmpeg('-i', path, '-an', '-vf', 'scale=160:90', '-f', 'framemd5', '-').toString().split('\n').filter((line) => line && !line.startsWith('#'));
  const sums = lines.map((line) => line.split(',').at(-1).trim());
  return { decoded: sums.length, different: sums.filter((sum, i) => sum !== sums[i - 1]).length };
}

/** Samples of a recording: mono, 48 kHz, −1 to 1. */
export function samples(path) {
  const raw = ffmpeg('-i', path, '-f', 'f32le', '-ac', '1', '-ar', '48000', '-');
  return new Float32Array(raw.buffer, raw.byteOffset, raw.byteLength >> 2);
}

/**
 * Strength of one frequency within samples, 0 to 1 of full scale: Goertzel over pieces of 0.2 s, the mean of them, so that a
 * lost packet, which shifts the phase of all that follows, costs one piece and not the whole.
 */
export function strength(data, hz, rate = 48000) {
  const coefficient = 2 * Math.cos((2 * Math.PI * hz) / rate);
  const piece = Math.min(data.length, Math.round(rate / 5));
  const count = Math.max(1, Math.floor(data.length / Math.max(1, piece)));
  let sum = 0;
  for (let i = 0; i < count; i++) {
    let [a, b] = [0, 0];
    for (const x of data.subarray(i * piece, (i + 1) * piece)) [a, b] = [x + coefficient * a - b, a];
    sum += (2 / Math.max(1, piece)) * Math.sqrt(Math.max(0, a * a + b * b - coefficient * a * b));
  }
  return sum / count;
}

/** Root mean square. */
export const rms = (data) => Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / Math.max(1, data.length));

/** How loud samples are, from 20 ms to 20 ms: the root mean square of 40 ms. */
export const envelope = (data) => Array.from({ length: Math.max(0, Math.floor(data.length / 960) - 1) }, (_, i) => rms(data.subarray(960 * i, 960 * (i + 2))));

/**
 * Something like speech, as long as no synthesiser is at hand: ten seconds of syllables of uneven length and loudness with
 * pauses, each with the harmonics of a gliding pitch of about 120 Hz under the formants of a vowel. Samples at 48 kHz.
 */
export function speech(seconds = 10) {
  let dice = 7;
  const random = () => { dice = (Math.imul(dice, 1664525) + 1013904223) >>> 0; return dice / 2 ** 32; };
  const vowels = [[730, 1090, 2440], [270, 2290, 3010], [530, 1840, 2480], [570, 840, 2410], [440, 1020, 2240]];
  const data = new Float32Array(seconds * 48000);
  let at = 0;
  while (at < data.length) {
    const [length, loud, pitch, vowel] = [4000 + random() * 9000, 0.35 + 0.65 * random(), 105 + random() * 30, vowels[Math.floor(random() * vowels.length)]];
    const gain = (hz) => vowel.reduce((sum, formant, i) => sum + 1 / (1 + ((hz - formant) / 90) ** 2) / (i + 1), 0.02);
    for (let i = 0; i < length && at + i < data.length; i++) {
      const [time, share] = [i / 48000, i / length];
      let sample = 0;
      for (let n = 1; n * pitch < 3400; n++) sample += gain(n * pitch) * Math.sin(2 * Math.PI * n * (pitch * time + 8 * time * time));
      data[at + i] = 0.12 * loud * Math.sin(Math.PI * share) ** 0.7 * sample;
    }
    at += Math.round(length + (random() < 0.25 ? 8000 + random() * 12000 : 500 + random() * 2500));
  }
  return data;
}

/** Samples as an Ogg Opus file for natives. */
function oggFile(name, samplesOf) {
  const path = join(folder, name);
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true });
    const draft = join(folder, `draft-${process.pid}-${name}`);
    const args = ['-hide_banner', '-loglevel', 'error', '-y', '-f', 'f32le', '-ar', '48000', '-ac', '1', '-i', 'pipe:0', '-c:a', 'libopus', '-b:a', '64k', draft];
    execFileSync('ffmpeg', args, { input: Buffer.from(samplesOf().buffer) });
    renameSync(draft, path);
  }
  return path;
}

/** {@link speech} as a file. */
export const speechFile = () => oggFile('speech.ogg', speech);

/** Somebody who says something now and then, a file of a minute; `who` makes another one. */
export const talkFile = (who) => oggFile(`talk-${who}.ogg`, () => {
  let dice = 1 + 1000 * who;
  const random = () => { dice = (Math.imul(dice, 1664525) + 1013904223) >>> 0; return dice / 2 ** 32; };
  const [voice, data] = [speech(), new Float32Array(60 * 48000)];
  for (let at = random() * 8; at < 58; at += 3 + random() * 9) {
    const [length, from] = [1 + random() * 4, random() * 5];
    data.set(voice.subarray(Math.round(48000 * from), Math.round(48000 * (from + Math.min(length, 59 - at)))), Math.round(48000 * at));
    at += length;
  }
  return data;
});

/** Pearson's correlation of the first with that part of the second, of the same length, where it is highest. */
export function correlation(part, whole) {
  const mean = (data) => data.reduce((sum, x) => sum + x, 0) / data.length;
  const centred = (data) => { const middle = mean(data); return data.map((x) => x - middle); };
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const a = centred(part);
  let best = -1;
  for (let lag = 0; lag + part.length <= whole.length; lag++) {
    const b = centred(whole.slice(lag, lag + part.length));
    best = Math.max(best, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1));
  }
  return best;
}

/** A white flash of 100 ms at the beginning of every second, 60 pictures a second, by default each a keyframe: play may go on anywhere. */
export const flashes = (group = 1, seconds = 10) =>
  made(`flashes-${group}-${seconds}.h264`, '-f', 'lavfi', '-i', "color=black:size=320x180:rate=60,drawbox=color=white:t=fill:enable='lt(mod(t\\,1)\\,0.1)'", '-t', String(seconds), '-c:v', 'libx264', '-profile:v', 'baseline',
    '-preset', 'veryfast', '-tune', 'zerolatency', '-b:v', '400k', '-g', String(group), '-sc_threshold', '0', '-bf', '0', '-f', 'h264');

/** A tone of 100 ms at the beginning of every second. */
export const beeps = () =>
  made('beeps.ogg', '-f', 'lavfi', '-i', "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.1)':s=48000", '-t', '10', '-c:a', 'libopus', '-b:a', '48k', '-application', 'lowdelay', '-frame_duration', '20', '-f', 'ogg');
