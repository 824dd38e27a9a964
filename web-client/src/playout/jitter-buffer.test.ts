import { describe, expect, it } from "vitest";
import { JitterBuffer, RATE } from "./jitter-buffer.js";
import { dominantHz, rms } from "./spectrum.js";

const QUANTUM = 128;
const PACKET = 960;

/** Plays a tone through a buffer: `delays` gives each packet's delay in ms, or `undefined` for one that never comes. */
class Rig {
  readonly buffer = new JitterBuffer();
  readonly out: number[] = [];
  readonly levels: number[] = [];
  #now = 0;
  #queue: { at: number; index: number }[] = [];

  constructor(
    readonly hz = 440,
    readonly step = 1,
  ) {}

  schedule(from: number, count: number, delay: (index: number) => number | undefined): this {
    let last = 0;
    for (let index = from; index < from + count; index++) {
      const wait = delay(index);
      if (wait === undefined) continue;
      // The transport keeps order.
      last = Math.max(last, index * 20 + 20 + wait);
      this.#queue.push({ at: last, index });
    }
    return this;
  }

  run(ms: number): this {
    const end = this.#now + ms;
    const quantumMs = (QUANTUM * this.step * 1000) / RATE;
    while (this.#now < end) {
      while (this.#queue[0] && this.#queue[0].at <= this.#now) {
        const { index } = this.#queue.shift() ?? { index: 0 };
        this.buffer.push(Float32Array.from({ length: PACKET }, (_, i) => 0.3 * Math.sin((2 * Math.PI * this.hz * (index * PACKET + i)) / RATE)), undefined, index * 20);
      }
      const left = new Float32Array(QUANTUM);
      this.buffer.mix(left, new Float32Array(QUANTUM), new Float32Array(QUANTUM), QUANTUM, this.step);
      this.out.push(...left);
      this.levels.push(this.buffer.levelMs);
      this.#now += quantumMs;
    }
    return this;
  }

  lastSecond(): Float32Array {
    return Float32Array.from(this.out.slice(-RATE / this.step));
  }
}

describe("the jitter buffer", () => {
  it("plays a steady stream unchanged after about 60 ms", () => {
    const rig = new Rig(440).schedule(0, 200, () => 0).run(3500);
    expect(dominantHz(rig.lastSecond(), RATE)).toBeCloseTo(440, 0);
    expect(rms(rig.lastSecond())).toBeCloseTo(0.3 / Math.SQRT2, 2);
    expect(rig.buffer.counters.concealedMs).toBe(0);
    const start = rig.out.findIndex((sample) => sample !== 0) / (RATE / 1000);
    expect(start).toBeGreaterThan(40);
    expect(start).toBeLessThan(110);
  });

  it("holds the pitch of low, middle and high tones while it sheds delay", () => {
    for (const hz of [150, 440, 1000, 3500]) {
      // 300 ms arrive late in one piece, so the level jumps and has to come down.
      const rig = new Rig(hz).schedule(0, 600, (i) => (i === 50 ? 300 : 0)).run(9000);
      expect(Math.abs(dominantHz(rig.lastSecond(), RATE) - hz)).toBeLessThan(2);
      expect(rig.levels.at(-1)).toBeLessThan(120);
    }
  });

  it("gets over a hiccup of the join within two seconds", () => {
    // Sound that stops for 150 ms right after it began, and comes evenly from then on.
    const rig = new Rig().schedule(0, 200, (i) => (i >= 5 && i < 13 ? 150 - 20 * (i - 5) : 0)).run(2500);
    expect(rig.buffer.counters.concealments).toBeGreaterThan(0);
    expect(rig.buffer.slackMs).toBeLessThanOrEqual(JitterBuffer.SLACK_START_MS + JitterBuffer.SLACK_STEP_MS);
    expect(rig.levels.at(-1)).toBeLessThan(80);
    // The same later is the path's doing: more is kept from then on.
    const later = new Rig().schedule(0, 300, (i) => (i >= 105 && i < 113 ? 150 - 20 * (i - 105) : 0)).run(5500);
    expect(later.buffer.slackMs).toBeGreaterThan(JitterBuffer.SLACK_START_MS + JitterBuffer.SLACK_STEP_MS + 5);
  });

  it("leaves out at once what came all together at the join", () => {
    const rig = new Rig().schedule(0, 100, (i) => Math.max(0, 300 - 20 * i)).run(700);
    expect(rig.levels.at(-1)).toBeLessThan(70);
    expect(rig.buffer.counters.concealments).toBe(0);
    expect(rig.buffer.counters.skippedMs).toBeGreaterThan(150);
  });

  it("does not leave out at a join what is needed until the next burst", () => {
    const rig = new Rig().schedule(0, 200, (i) => 240 - 20 * (i % 13)).run(1500);
    expect(rig.buffer.counters.skippedMs).toBeLessThan(150);
    expect(rig.buffer.counters.concealedMs).toBeLessThan(300);
  });

  it("goes on at another place without a click", () => {
    const rig = new Rig(300).schedule(0, 100, (i) => Math.max(0, 300 - 20 * i)).run(900);
    const first = rig.out.findIndex((sample) => sample !== 0);
    let worst = 0;
    for (let i = first + 400; i < rig.out.length; i++) worst = Math.max(worst, Math.abs((rig.out[i] ?? 0) - (rig.out[i - 1] ?? 0)));
    expect(rig.buffer.counters.skippedMs).toBeGreaterThan(150);
    // The tone itself moves by 0.012 per sample.
    expect(worst).toBeLessThan(0.02);
  });

  it("bridges the jitter it has seen without concealing", () => {
    const rig = new Rig().schedule(0, 1000, (i) => (i % 10 === 3 ? 50 : 0)).run(5000);
    const early = rig.buffer.counters.concealments;
    rig.run(10_000);
    expect(early).toBeGreaterThan(0);
    expect(rig.buffer.counters.concealments - early).toBeLessThanOrEqual(2);
    expect(rig.buffer.slackMs).toBeLessThanOrEqual(JitterBuffer.SLACK_MAX_MS);
  });

  it("conceals a lost packet without click or silence", () => {
    const rig = new Rig().schedule(0, 100, (i) => (i === 50 ? undefined : 0)).run(1900);
    let worst = 0;
    for (let i = 6000; i < rig.out.length; i++) worst = Math.max(worst, Math.abs((rig.out[i] ?? 0) - (rig.out[i - 1] ?? 0)));
    // The tone itself moves by 0.017 per sample.
    expect(worst).toBeLessThan(0.12);
    expect(rig.buffer.counters.concealments).toBe(1);
  });

  it("falls silent in a pause, and does not count it as concealment", () => {
    const rig = new Rig().schedule(0, 50, () => 0).run(2500);
    expect(rms(Float32Array.from(rig.out.slice(-4800)))).toBe(0);
    expect(rig.buffer.counters.concealments).toBe(0);
    expect(rig.buffer.isPlaying).toBe(false);
    rig.schedule(150, 50, () => 0).run(1200);
    expect(rms(Float32Array.from(rig.out.slice(-4800)))).toBeGreaterThan(0.15);
  });

  it("never keeps more than its limit, whatever comes", () => {
    const buffer = new JitterBuffer();
    for (let i = 0; i < 500; i++) {
      buffer.push(new Float32Array(PACKET).fill(0.1), undefined, i * 20);
      expect(buffer.levelMs).toBeLessThanOrEqual(JitterBuffer.HARD_LIMIT_MS + 20);
    }
  });

  it("drops what comes twice, and takes over a clock that starts anew", () => {
    const buffer = new JitterBuffer();
    buffer.push(new Float32Array(PACKET), undefined, 1000);
    buffer.push(new Float32Array(PACKET), undefined, 1000);
    expect(buffer.levelMs).toBe(20);
    buffer.push(new Float32Array(PACKET), undefined, 5);
    expect(buffer.levelMs).toBe(40);
  });

  it("resamples for a context of 44.1 kHz", () => {
    const step = RATE / 44_100;
    const rig = new Rig(1000, step).schedule(0, 300, () => 0).run(4000);
    expect(Math.abs(dominantHz(rig.lastSecond(), 44_100) - 1000)).toBeLessThan(2);
  });

  it("holds its level against a sender whose clock is 300 ppm fast or slow", () => {
    for (const factor of [0.9997, 1.0003]) {
      const rig = new Rig(700).schedule(0, 3000, (i) => i * 20 * (factor - 1) + 20);
      rig.run(50_000);
      expect(rig.levels.at(-1)).toBeGreaterThan(5);
      expect(rig.levels.at(-1)).toBeLessThan(120);
      expect(rig.buffer.counters.concealments).toBeLessThan(4);
    }
  });

  it("knows the timestamp that is being heard", () => {
    const rig = new Rig().schedule(0, 100, () => 0).run(1000);
    const playing = rig.buffer.playingTimestamp ?? 0;
    expect(playing).toBeGreaterThan(1000 - 120);
    expect(playing).toBeLessThan(1000 - 20);
  });
});

describe("the strongest frequency", () => {
  it("is found within 2 Hz between 100 and 4000 Hz, at common rates", () => {
    for (const rate of [44_100, 48_000]) {
      for (const hz of [100, 261.6, 440, 997, 2500, 4000]) {
        const tone = Float32Array.from({ length: rate }, (_, i) => 0.1 * Math.sin((2 * Math.PI * hz * i) / rate));
        expect(Math.abs(dominantHz(tone, rate) - hz)).toBeLessThan(2);
      }
    }
  });

  it("of silence is 0", () => {
    expect(dominantHz(new Float32Array(48_000), 48_000)).toBe(0);
  });
});
