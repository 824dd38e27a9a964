// What TypeScript's DOM library does not have.

/** Chromium: on the window and in workers; Safari: in workers, video only. */
declare class MediaStreamTrackProcessor<T extends VideoFrame | AudioData> {
  constructor(init: { track: MediaStreamTrack; maxBufferSize?: number });
  readonly readable: ReadableStream<T>;
}

/** Chromium, on the window: a track of what is written. */
declare class MediaStreamTrackGenerator extends MediaStreamTrack {
  constructor(init: { kind: "video" });
  readonly writable: WritableStream<VideoFrame>;
}

interface VideoFrame {
  /** Clockwise degrees by which the picture has to be turned to stand upright. */
  readonly rotation?: number;
  /** Whether it has to be mirrored after turning. */
  readonly flip?: boolean;
}

interface AudioContext {
  setSinkId?(sinkId: string): Promise<void>;
}

interface NetworkInformation extends EventTarget {
  readonly effectiveType?: string;
}

interface Navigator {
  readonly connection?: NetworkInformation;
}

// The global scope of audio worklets.
declare abstract class AudioWorkletProcessor {
  readonly port: MessagePort;
  constructor(options?: unknown);
  abstract process(inputs: Float32Array[][], outputs: Float32Array[][], parameters: Record<string, Float32Array>): boolean;
}
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;
declare const sampleRate: number;
declare const currentTime: number;
