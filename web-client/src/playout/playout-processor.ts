import type { FromPlayout, PlayoutStats, ToPlayout } from "../workers/messages.js";
import { JitterBuffer, RATE } from "./jitter-buffer.js";

interface Source {
  buffer: JitterBuffer;
  /** Ring of what was played in the last second. */
  played: Float32Array;
  squares: number;
  squaresLong: number[];
  started: boolean;
}

/** Plays all sources: one jitter buffer each, mixed into one stereo output. What is played is kept for a second, for measuring. */
export class Playout extends AudioWorkletProcessor {
  readonly #sources = new Map<number, Source>();
  readonly #block = new Float32Array(128);
  #session: MessagePort | undefined;
  #position = 0;
  #sinceReport = 0;

  constructor() {
    super();
    this.port.onmessage = (event: MessageEvent<{ port: MessagePort }>) => {
      this.#session = event.data.port;
      this.#session.onmessage = (message: MessageEvent<ToPlayout>) => this.#receive(message.data);
    };
  }

  #receive(message: ToPlayout): void {
    switch (message.type) {
      case "pcm": {
        let source = this.#sources.get(message.source);
        if (!source) {
          source = { buffer: new JitterBuffer(), played: new Float32Array(Math.round(sampleRate)), squares: 0, squaresLong: [], started: false };
          this.#sources.set(message.source, source);
        }
        source.buffer.push(message.left, message.right, message.timestamp);
        break;
      }
      case "end":
        this.#sources.delete(message.source);
        break;
      case "stats":
        this.#reportStats(message.request, message.sound);
        break;
    }
  }

  override process(_inputs: Float32Array[][], outputs: Float32Array[][]): boolean {
    const left = outputs[0]?.[0];
    const right = outputs[0]?.[1] ?? left;
    if (!left || !right) return true;
    const length = Math.min(left.length, this.#block.length);
    const step = RATE / sampleRate;
    for (const source of this.#sources.values()) {
      source.buffer.mix(left, right, this.#block, length, step);
      const size = source.played.length;
      for (let i = 0; i < length; i++) {
        const sample = this.#block[i] ?? 0;
        source.played[(this.#position + i) % size] = sample;
        source.squares += sample * sample;
      }
    }
    this.#position += length;
    this.#sinceReport += length;
    if (this.#sinceReport >= sampleRate / 10) this.#reportLevels();
    return true;
  }

  #reportLevels(): void {
    const values = new Float64Array(this.#sources.size * 3);
    let at = 0;
    for (const [id, source] of this.#sources) {
      const timestamp = source.buffer.playingTimestamp;
      if (!source.started && timestamp !== undefined) {
        source.started = true;
        this.#post({ type: "started", source: id });
      }
      values.set([id, Math.sqrt(source.squares / this.#sinceReport), timestamp ?? Number.NaN], at);
      at += 3;
      source.squaresLong.push(source.squares / this.#sinceReport);
      if (source.squaresLong.length > 10) source.squaresLong.shift();
      source.squares = 0;
    }
    this.#sinceReport = 0;
    this.#post({ type: "levels", values }, [values.buffer]);
  }

  #reportStats(request: number, sound: boolean): void {
    const sources: PlayoutStats[] = [];
    for (const [id, source] of this.#sources) {
      const size = sound ? source.played.length : 0;
      const played = new Float32Array(size);
      if (sound) {
        // Oldest sample first.
        const split = this.#position % size;
        played.set(source.played.subarray(split));
        played.set(source.played.subarray(0, split), size - split);
      }
      const { concealedMs, concealments } = source.buffer.counters;
      const level = Math.sqrt(source.squaresLong.reduce((sum, value) => sum + value, 0) / Math.max(1, source.squaresLong.length));
      sources.push({ source: id, delayMs: source.buffer.levelMs, concealedMs, concealments, level, played });
    }
    this.#post({ type: "stats", request, sampleRate, sources }, sources.map((source) => source.played.buffer));
  }

  #post(message: FromPlayout, transfer: Transferable[] = []): void {
    this.#session?.postMessage(message, transfer);
  }
}
