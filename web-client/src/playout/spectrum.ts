/** Level and strongest frequency of a stretch of sound. */

/** Linear RMS. */
export function rms(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length === 0 ? 0 : Math.sqrt(sum / samples.length);
}

/** The last `count` samples of two windows of equal length, of which the older one ends `count` − length samples before the newer one. */
export function joinWindows(older: Float32Array<ArrayBuffer>, newer: Float32Array<ArrayBuffer>, count: number): Float32Array<ArrayBuffer> {
  const missing = Math.min(older.length, count - newer.length);
  if (missing <= 0) return newer.slice(-count);
  const joined = new Float32Array(missing + newer.length);
  joined.set(older.subarray(0, missing));
  joined.set(newer, missing);
  return joined;
}

/** Quieter than this counts as silence (about −60 dB). */
export const SILENCE_RMS = 0.001;

/** The strongest frequency above 40 Hz, Hz, to about ±1 Hz for half a second of sound or more; 0 for silence. */
export function dominantHz(samples: Float32Array, rate: number): number {
  if (samples.length < 256 || rms(samples) < SILENCE_RMS) return 0;
  // Up to 6 kHz is enough, and a quarter of the work: average groups of samples.
  const factor = Math.max(1, Math.floor(rate / 12_000));
  const reducedRate = rate / factor;
  const count = Math.floor(samples.length / factor);
  let size = 1;
  while (size < count) size *= 2;
  const re = new Float64Array(size);
  const im = new Float64Array(size);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let k = 0; k < factor; k++) sum += samples[i * factor + k] ?? 0;
    re[i] = sum * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / count));
  }
  fft(re, im);
  const power = (bin: number): number => (re[bin] ?? 0) ** 2 + (im[bin] ?? 0) ** 2;
  let best = 0;
  for (let bin = Math.ceil((40 * size) / reducedRate); bin < size / 2; bin++) if (power(bin) > power(best) || best === 0) best = bin;
  // The top of a parabola through the logarithms of the peak and its neighbours lies between the bins.
  const [a, b, c] = [power(best - 1), power(best), power(best + 1)].map((value) => Math.log(value + 1e-30)) as [number, number, number];
  const shift = a - 2 * b + c === 0 ? 0 : (0.5 * (a - c)) / (a - 2 * b + c);
  return ((best + Math.max(-0.5, Math.min(0.5, shift))) * reducedRate) / size;
}

/** In place, length a power of two. */
function fft(re: Float64Array, im: Float64Array): void {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j] ?? 0, re[i] ?? 0];
      [im[i], im[j]] = [im[j] ?? 0, im[i] ?? 0];
    }
  }
  for (let length = 2; length <= size; length *= 2) {
    const angle = (-2 * Math.PI) / length;
    const stepRe = Math.cos(angle);
    const stepIm = Math.sin(angle);
    for (let start = 0; start < size; start += length) {
      let wRe = 1;
      let wIm = 0;
      for (let k = start; k < start + length / 2; k++) {
        const other = k + length / 2;
        const xRe = (re[other] ?? 0) * wRe - (im[other] ?? 0) * wIm;
        const xIm = (re[other] ?? 0) * wIm + (im[other] ?? 0) * wRe;
        re[other] = (re[k] ?? 0) - xRe;
        im[other] = (im[k] ?? 0) - xIm;
        re[k] = (re[k] ?? 0) + xRe;
        im[k] = (im[k] ?? 0) + xIm;
        const next = wRe * stepRe - wIm * stepIm;
        wIm = wRe * stepIm + wIm * stepRe;
        wRe = next;
      }
    }
  }
}
