/** Finds the lag at which a signal repeats itself, and joins signals there. All lengths in samples at 48 kHz. */

/** 2.5 ms: the period of 400 Hz; higher tones repeat at multiples of theirs. */
export const MIN_LAG = 120;
/** 12.5 ms: the period of 80 Hz. */
export const MAX_LAG = 600;
/** Samples compared at each lag. */
export const SEARCH_WINDOW = 240;

/** A ring of samples whose length is a power of two; positions grow without bound and are masked on access. */
export class Ring {
  readonly data: Float32Array;
  readonly mask: number;

  constructor(readonly size: number) {
    this.data = new Float32Array(size);
    this.mask = size - 1;
  }

  at(position: number): number {
    return this.data[position & this.mask] ?? 0;
  }

  set(position: number, value: number): void {
    this.data[position & this.mask] = value;
  }
}

/** The lag in [MIN_LAG, MAX_LAG] at which the samples from `start` on are most like those `lag` later. Reads up to start + MAX_LAG + SEARCH_WINDOW. */
export function bestLag(ring: Ring, start: number): number {
  const coarse = search(ring, start, MIN_LAG, MAX_LAG, 4, 4);
  // Coarse steps are wide for high tones, so the neighbourhood is searched sample by sample.
  return search(ring, start, Math.max(MIN_LAG, coarse - 4), Math.min(MAX_LAG, coarse + 4), 1, 1);
}

function search(ring: Ring, start: number, from: number, to: number, lagStep: number, sampleStep: number): number {
  let best = from;
  let bestScore = -Infinity;
  for (let lag = from; lag <= to; lag += lagStep) {
    let product = 0;
    let energy = 1e-9;
    for (let i = 0; i < SEARCH_WINDOW; i += sampleStep) {
      const a = ring.at(start + i);
      const b = ring.at(start + lag + i);
      product += a * b;
      energy += b * b;
    }
    const score = product / Math.sqrt(energy);
    if (score > bestScore) {
      bestScore = score;
      best = lag;
    }
  }
  return best;
}
