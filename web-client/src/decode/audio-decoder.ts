/** Decoded sound, 48 kHz. */
export interface DecodedSound {
  /** Room clock, ms, unwrapped. */
  timestamp: number;
  left: Float32Array;
  right: Float32Array | undefined;
}

/** Decodes one remote Opus track. Browsers give out one block per packet, in order, but count time in their own way, so timestamps are kept here. */
export class OpusDecoder {
  /** Packets inside the decoder at one time: half a second. */
  static readonly MAX_INSIDE = 25;
  #decoder: AudioDecoder | undefined;
  #inside: number[] = [];
  #errors = 0;

  constructor(readonly onSound: (sound: DecodedSound) => void) {}

  /** Packets that the decoder refused. */
  get errors(): number {
    return this.#errors;
  }

  static get isSupported(): boolean {
    return typeof AudioDecoder !== "undefined";
  }

  push(packet: Uint8Array, timestamp: number): void {
    // One that is stuck is replaced; what it holds is too old to be heard.
    if (this.#inside.length > OpusDecoder.MAX_INSIDE) this.close();
    try {
      if (!this.#decoder || this.#decoder.state === "closed") {
        this.#inside = [];
        this.#decoder = new AudioDecoder({ output: (data) => this.#output(data), error: () => this.#failed() });
        this.#decoder.configure({ codec: "opus", sampleRate: 48_000, numberOfChannels: stereo(packet) ? 2 : 1 });
      }
      this.#inside.push(timestamp);
      this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: Math.round(timestamp * 1000), data: packet }));
    } catch {
      this.#failed();
    }
  }

  /** Goes on with another decoder at the next packet. */
  #failed(): void {
    this.#errors++;
    this.close();
  }

  close(): void {
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = undefined;
    this.#inside = [];
  }

  #output(data: AudioData): void {
    const timestamp = this.#inside.shift();
    if (timestamp !== undefined && data.numberOfFrames > 0) {
      const left = plane(data, 0);
      this.onSound({ timestamp, left, right: data.numberOfChannels > 1 ? plane(data, 1) : undefined });
    }
    data.close();
  }
}

function plane(data: AudioData, planeIndex: number): Float32Array {
  const samples = new Float32Array(data.numberOfFrames);
  data.copyTo(samples, { planeIndex, format: "f32-planar" });
  return samples;
}

/** The stereo flag in an Opus packet's first byte (RFC 6716, section 3.1). A decoder made for one channel mixes stereo down by itself. */
function stereo(packet: Uint8Array): boolean {
  return ((packet[0] ?? 0) & 4) !== 0;
}
