/** Who gets what comes out of a decoder. */
export interface DecoderOwner {
  output(frame: VideoFrame): void;
  /** The decoder is closed. */
  error(): void;
}

/** A gray picture of 320×180 px in H.264, constrained baseline: parameter sets and an IDR slice. */
const GRAY =
  "AAAAAWdCwAzZgUGfnwEQAAADABAAAAMAIPFCpoAAAAABaMlgOSyAAAABZYiEPybvvvvvvvvvvvvvvvvvvvrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrw=";
/** Its timestamp, µs: those of a room's pictures are whole ms. */
const GRAY_TIMESTAMP = 1;
/** Everything that decoders of H.264 decode, so that a picture of another profile or size is no other configuration: High, level 4.0. */
const H264_UP_TO = { codec: "avc1.640028", level: 0x28 };

/** What a decoder is configured with for a stream of this codec string. */
export function configurationFor(codec: string): string {
  const level = /^avc1\.(?:42|4d|64)[0-9a-f]{2}([0-9a-f]{2})$/i.exec(codec)?.[1];
  return level !== undefined && Number.parseInt(level, 16) <= H264_UP_TO.level ? H264_UP_TO.codec : codec;
}

/** A `VideoDecoder` that can be running before it has an owner. */
export class PictureDecoder {
  readonly #decoder: VideoDecoder;
  #owner: DecoderOwner;
  #configuration = "";

  /**
   * @param warmed gets the gray picture of {@link warm}, and does not keep it
   * @throws ReferenceError where there is no WebCodecs
   */
  constructor(owner: DecoderOwner, warmed?: (gray: VideoFrame) => void) {
    this.#owner = owner;
    this.#decoder = new VideoDecoder({
      output: (frame) => {
        if (frame.timestamp !== GRAY_TIMESTAMP) {
          this.#owner.output(frame);
          return;
        }
        try {
          warmed?.(frame);
        } finally {
          frame.close();
        }
      },
      error: () => this.#owner.error(),
    });
  }

  get isOpen(): boolean {
    return this.#decoder.state !== "closed";
  }

  setOwner(owner: DecoderOwner): void {
    this.#owner = owner;
  }

  /**
   * @param exact with this codec string and no other
   * @returns whether what was inside is lost
   * @throws DOMException for what cannot be decoded
   */
  configure(codec: string, exact = false): boolean {
    const configuration = exact ? codec : configurationFor(codec);
    if (configuration === this.#configuration && this.#decoder.state === "configured") return false;
    this.#decoder.configure({ codec: configuration, optimizeForLatency: true });
    this.#configuration = configuration;
    return true;
  }

  /** @throws DOMException when the decoder is closed, or wants a keyframe */
  decode(chunk: EncodedVideoChunkInit): void {
    this.#decoder.decode(new EncodedVideoChunk(chunk));
  }

  /** Has the browser choose and start the decoder, which takes as long as a keyframe or two. */
  warm(): void {
    this.configure(H264_UP_TO.codec);
    this.decode({ type: "key", timestamp: GRAY_TIMESTAMP, data: Uint8Array.from(atob(GRAY), (char) => char.charCodeAt(0)) });
  }

  close(): void {
    if (this.isOpen) this.#decoder.close();
  }
}

/** One decoder that runs before the first picture of a room comes, which is then shown 10 to 20 ms sooner. */
export class SpareDecoder {
  #spare: PictureDecoder | undefined;

  /** @param warmed what else can be made ready with a decoded picture */
  constructor(readonly warmed?: (gray: VideoFrame) => void) {}

  prepare(): void {
    try {
      this.#spare = new PictureDecoder({ output: (frame) => frame.close(), error: () => (this.#spare = undefined) }, this.warmed);
      this.#spare.warm();
    } catch {
      // Whoever needs a decoder makes one, and says so if that fails.
      this.#spare = undefined;
    }
  }

  /** Nobody will need it. */
  drop(): void {
    this.#spare?.close();
    this.#spare = undefined;
  }

  /** The spare one, once. One that does not fit is closed: devices have few. */
  take(codec: string, owner: DecoderOwner): PictureDecoder | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    if (!spare?.isOpen) return undefined;
    if (configurationFor(codec) !== H264_UP_TO.codec) {
      spare.close();
      return undefined;
    }
    spare.setOwner(owner);
    return spare;
  }
}
