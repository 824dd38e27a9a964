/**
 * Takes sound from the page's audio graph and hands it to the session worker, 10 ms at a time, one channel: the road of browsers that have no
 * MediaStreamTrackProcessor for sound.
 */
export class Capture extends AudioWorkletProcessor {
  readonly #block = new Float32Array(Math.round(sampleRate / 100));
  #filled = 0;
  #out: MessagePort | undefined;
  #ended = false;

  constructor() {
    super();
    this.port.onmessage = (event: MessageEvent<{ port: MessagePort } | { end: true }>) => {
      if ("port" in event.data) this.#out = event.data.port;
      else this.#ended = true;
    };
  }

  override process(inputs: Float32Array[][]): boolean {
    const channels = inputs[0] ?? [];
    const first = channels[0];
    // Without input (a track that ended) there is nothing to send; the sender sees a pause.
    for (let i = 0; first && i < first.length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i] ?? 0;
      this.#block[this.#filled++] = sum / channels.length;
      if (this.#filled === this.#block.length) {
        const samples = this.#block.slice();
        this.#out?.postMessage({ samples, sampleRate }, [samples.buffer]);
        this.#filled = 0;
      }
    }
    return !this.#ended;
  }
}
