import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { isPrompt } from "./probe.js";

type Output = (chunk: { timestamp: number }) => void;

/** An encoder that needs some time to start, and then gives what `ready` says of the pictures inside, oldest first. */
function encoder(startMs: number, ready: (inside: number, now: number) => number, lagMs = 5): void {
  const begun = performance.now();
  vi.stubGlobal("VideoFrame", class {
    readonly timestamp: number;
    constructor(_: unknown, { timestamp }: { timestamp: number }) {
      this.timestamp = timestamp;
    }
    close(): void {}
  });
  vi.stubGlobal("VideoEncoder", class {
    static isConfigSupported = (): Promise<unknown> => Promise.resolve({ supported: true });
    state = "unconfigured";
    readonly #inside: number[] = [];
    readonly #output: Output;
    constructor({ output }: { output: Output }) {
      this.#output = output;
    }
    configure(): void {
      this.state = "configured";
    }
    close(): void {
      this.state = "closed";
    }
    encode({ timestamp }: { timestamp: number }): void {
      this.#inside.push(timestamp);
      const wait = Math.max(lagMs, begun + startMs - performance.now());
      setTimeout(() => {
        for (let i = ready(this.#inside.length, performance.now() - begun); i > 0 && this.state === "configured"; i--) {
          const out = this.#inside.shift();
          if (out !== undefined) this.#output({ timestamp: out });
        }
      }, wait);
    }
  });
}

async function verdict(): Promise<boolean> {
  const result = isPrompt("h264");
  await vi.advanceTimersByTimeAsync(4000);
  return result;
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the probe of an encoder", () => {
  it("takes one that gives each picture at once, also after a slow start", async () => {
    encoder(0, () => 1);
    expect(await verdict()).toBe(true);
    encoder(700, () => 1);
    expect(await verdict()).toBe(true);
  });

  it("takes one that holds a single picture back", async () => {
    encoder(0, (inside) => (inside > 1 ? 1 : 0));
    expect(await verdict()).toBe(true);
  });

  it("refuses one that lags", async () => {
    encoder(0, (inside) => (inside > 6 ? 1 : 0));
    expect(await verdict()).toBe(false);
    encoder(0, () => 1, 150);
    expect(await verdict()).toBe(false);
  });

  it("refuses one that gives its pictures in bursts", async () => {
    encoder(0, (inside) => (inside >= 8 ? inside : 0));
    expect(await verdict()).toBe(false);
  });

  it("forgives one late picture", async () => {
    encoder(0, (inside, now) => (now > 80 && now < 200 ? 0 : inside));
    expect(await verdict()).toBe(true);
  });

  it("measures anew after a machine's hiccup", async () => {
    encoder(0, (inside, now) => (now > 80 && now < 400 ? 0 : inside));
    expect(await verdict()).toBe(true);
  });

  it("refuses one that never gives anything", async () => {
    encoder(0, () => 0);
    expect(await verdict()).toBe(false);
  });
});
