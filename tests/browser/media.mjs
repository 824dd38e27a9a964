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
export const h264 = (gop = 30, size = '640x360', bitrate = '800k') =>
  made(`native-${size}-${gop}-${bitrate}.h264`, '-f', 'lavfi', '-i', `testsrc2=size=${size}:rate=30`, '-t', '20', '-c:v', 'libx264', '-profile:v', 'baseline',
    '-preset', 'veryfast', '-tune', 'zerolatency', '-b:v', bitrate, '-maxrate', bitrate, '-bufsize', bitrate, '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0', '-bf', '0', '-f', 'h264');

/** How many pictures of a recording decode, and how many of them differ from each other. */
export function pictures(path) {
  const lines = ffmpeg('-i', path, '-an', '-vf', 'scale=160:90', '-f', 'framemd5', '-').toString().split('\n').filter((line) => line && !line.startsWith('#'));
  return { decoded: lines.length, different: new Set(lines.map((line) => line.split(',').at(-1).trim())).size };
}

/** Samples of a recording: mono, 48 kHz, −1 to 1. */
export function samples(path) {
  const raw = ffmpeg('-i', path, '-f', 'f32le', '-ac', '1', '-ar', '48000', '-');
  return new Float32Array(raw.buffer, raw.byteOffset, raw.byteLength >> 2);
}

/** Strength of one frequency within samples, 0 to 1 of full scale (Goertzel). */
export function strength(data, hz, rate = 48000) {
  const w = (2 * Math.PI * hz) / rate;
  let [a, b] = [0, 0];
  for (const x of data) [a, b] = [x + 2 * Math.cos(w) * a - b, a];
  return (2 / data.length) * Math.sqrt(Math.max(0, a * a + b * b - 2 * Math.cos(w) * a * b));
}

/** Root mean square. */
export const rms = (data) => Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / Math.max(1, data.length));

/** A white flash of 100 ms at the beginning of every second, 60 pictures a second, each a keyframe: play may go on anywhere. */
export const flashes = () =>
  made('flashes.h264', '-f', 'lavfi', '-i', "color=black:size=320x180:rate=60,drawbox=color=white:t=fill:enable='lt(mod(t\\,1)\\,0.1)'", '-t', '10', '-c:v', 'libx264', '-profile:v', 'baseline',
    '-preset', 'veryfast', '-tune', 'zerolatency', '-b:v', '400k', '-g', '1', '-bf', '0', '-f', 'h264');

/** A tone of 100 ms at the beginning of every second. */
export const beeps = () =>
  made('beeps.ogg', '-f', 'lavfi', '-i', "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.1)':s=48000", '-t', '10', '-c:a', 'libopus', '-b:a', '48k', '-application', 'lowdelay', '-frame_duration', '20', '-f', 'ogg');
