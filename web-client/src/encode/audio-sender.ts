import { OffsetClock } from "../media/clock.js";
import { Fragmenter } from "../media/fragments.js";
import { CODEC_OPUS } from "../media/header.js";
import { RateMeter } from "../media/rate.js";
import { Resampler } from "./resampler.js";
import type { Uplink } from "./uplink.js";

/** 48 kHz, 20 ms. */
const RATE = 48_000;
const PACKET = 960;

export interface AudioSenderOptions {
  slot: number;
  bitrate: number;
  uplink: Uplink;
  now: () => number;
  /** The encoder gave a packet, which is sent next. */
  onOutput: () => void;
  onFailure: (reason: string) => void;
  /** Linear RMS of each 100 ms captured. */
  onLevel: (level: number) => void;
}

/** Encodes one sound track as Opus, 20 ms, mono, and hands it to the uplink. Its time is a count of samples. */
export class AudioSender {
  /** Silence from the device for longer than this begins a new count, ms. */
  static readonly PAUSE_MS = 150;

  muted = false;
  readonly #options: AudioSenderOptions;
  readonly #fragmenter: Fragmenter;
  readonly #meter = new RateMeter();
  #encoder: AudioEncoder | undefined;
  #resampler = new Resampler(RATE, RATE);
  #block = new Float32Array(PACKET);
  #filled = 0;
  #clock = new OffsetClock();
  #samples = 0;
  #lastPush = -Infinity;
  /** Capture times of the packets inside the encoder, oldest first: it gives out one packet for each that goes in. */
  #inside: number[] = [];
  #squares = 0;
  #squaresCount = 0;
  #errors = 0;
  #closed = false;

  constructor(options: AudioSenderOptions) {
    this.#options = options;
    this.#fragmenter = new Fragmenter("audio", options.slot);
  }

  bitrate(now: number): number {
    return this.#meter.bitrate(now);
  }

  packetsPerSecond(now: number): number {
    return this.#meter.count(now);
  }

  /** Takes sound of one channel at any rate. */
  push(input: Float32Array, sampleRate: number): void {
    if (this.#closed) return;
    const now = this.#options.now();
    if (this.#resampler.from !== sampleRate) this.#resampler = new Resampler(sampleRate, RATE);
    if (now - this.#lastPush > AudioSender.PAUSE_MS) {
      this.#clock = new OffsetClock();
      this.#filled = 0;
    }
    this.#lastPush = now;
    const samples = this.#resampler.process(input);
    this.#measure(samples);
    for (let at = 0; at < samples.length; ) {
      const take = Math.min(PACKET - this.#filled, samples.length - at);
      this.#block.set(samples.subarray(at, at + take), this.#filled);
      this.#filled += take;
      this.#samples += take;
      at += take;
      if (this.#filled === PACKET) {
        this.#filled = 0;
        const end = this.#clock.map((this.#samples * 1000) / RATE, now);
        if (!this.muted) this.#encode(end - 20);
      }
    }
  }

  close(): void {
    this.#closed = true;
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = undefined;
  }

  #measure(samples: Float32Array): void {
    for (const sample of samples) this.#squares += sample * sample;
    this.#squaresCount += samples.length;
    if (this.#squaresCount < RATE / 10) return;
    this.#options.onLevel(Math.sqrt(this.#squares / this.#squaresCount));
    this.#squares = 0;
    this.#squaresCount = 0;
  }

  #encode(captured: number): void {
    try {
      if (!this.#encoder) {
        this.#inside = [];
        this.#encoder = new AudioEncoder({ output: (chunk) => this.#output(chunk), error: (error) => this.#fail(error) });
        this.#encoder.configure({
          codec: "opus", sampleRate: RATE, numberOfChannels: 1, bitrate: this.#options.bitrate,
          opus: { frameDuration: 20_000, application: "voip", usedtx: false, useinbandfec: false },
        } as AudioEncoderConfig);
      }
      // Half a second inside means that the encoder is stuck; a fresh one is better than old sound.
      if (this.#inside.length > 25) throw new Error("it does not keep up");
      const data = new AudioData({
        format: "f32-planar", sampleRate: RATE, numberOfChannels: 1, numberOfFrames: PACKET,
        timestamp: Math.round(captured * 1000), data: this.#block.slice(),
      });
      this.#inside.push(captured);
      this.#encoder.encode(data);
      data.close();
    } catch (error) {
      this.#fail(error);
    }
  }

  #output(chunk: EncodedAudioChunk): void {
    const captured = this.#inside.shift();
    if (captured === undefined || this.muted) return;
    this.#errors = 0;
    const payload = new Uint8Array(chunk.byteLength);
    chunk.copyTo(payload);
    this.#meter.add(this.#options.now(), payload.length);
    this.#options.onOutput();
    this.#options.uplink.sendAudio(this.#fragmenter.cut(payload, captured, CODEC_OPUS, false));
  }

  #fail(error: unknown): void {
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = undefined;
    if (++this.#errors >= 3 && !this.#closed) {
      this.#closed = true;
      this.#options.onFailure(`The sound encoder failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
