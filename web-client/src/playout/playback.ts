import { Emitter } from "../events.js";
import { RoomError } from "../error.js";
import type { RoomAudio } from "../types.js";
import playoutUrl from "./playout.worklet.ts?worker&url";

/** The page's side of playing: the audio context, its worklet, the output device and the volume. */
export class Playback extends Emitter<{ blocked: [boolean]; failed: [string] }> implements RoomAudio {
  readonly context: AudioContext;
  readonly #gain: GainNode;
  readonly #ownsContext: boolean;
  #node: AudioWorkletNode | undefined;
  #blocked = false;
  #closed = false;
  /** For browsers that choose the device on elements only. */
  #element: HTMLAudioElement | undefined;
  readonly #onGesture = (): void => void this.resume();
  readonly #onState = (): void => this.#watch();

  constructor(context?: AudioContext) {
    super();
    this.#ownsContext = context === undefined;
    this.context = context ?? new AudioContext({ sampleRate: 48_000, latencyHint: "interactive" });
    this.#gain = this.context.createGain();
    this.#gain.connect(this.context.destination);
    this.context.addEventListener("statechange", this.#onState);
  }

  /** Loads the worklet. @returns the port on which the session worker sends sound */
  async start(): Promise<MessagePort | undefined> {
    try {
      await this.context.audioWorklet.addModule(playoutUrl);
      if (this.#closed) return undefined;
      this.#node = new AudioWorkletNode(this.context, "wzp-playout", { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [2] });
    } catch (error) {
      this.emit("failed", error instanceof Error ? error.message : String(error));
      return undefined;
    }
    this.#node.connect(this.#gain);
    const channel = new MessageChannel();
    this.#node.port.postMessage({ port: channel.port1 }, [channel.port1]);
    void this.context.resume().catch(() => undefined);
    // Starting takes a moment, and is not "blocked" yet.
    setTimeout(() => this.#watch(), 300);
    return channel.port2;
  }

  get blocked(): boolean {
    return this.#blocked;
  }

  /** From the worklet to the ear, ms, as far as the browser knows. */
  get latencyMs(): number {
    const output = this.context.outputLatency as number | undefined;
    return 1000 * (this.context.baseLatency + (output ?? 0));
  }

  /** Where other sound (WebRTC's) joins in, to be played by the same rules. */
  get input(): AudioNode {
    return this.#gain;
  }

  async resume(): Promise<void> {
    if (this.#closed) return;
    await this.context.resume();
    await this.#element?.play();
    this.#watch();
  }

  async setSink(deviceId: string): Promise<void> {
    if (this.context.setSinkId) {
      await this.context.setSinkId(deviceId);
      return;
    }
    this.#element ??= this.#throughElement();
    if (!("setSinkId" in this.#element)) throw new RoomError("unsupported_browser", "This browser does not let a page choose the output device.", false);
    await this.#element.setSinkId(deviceId);
    await this.#element.play();
  }

  setVolume(volume: number): void {
    this.#gain.gain.setTargetAtTime(Math.max(0, Math.min(1, volume)), this.context.currentTime, 0.02);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#setBlocked(false);
    this.context.removeEventListener("statechange", this.#onState);
    this.#node?.disconnect();
    this.#gain.disconnect();
    this.#element?.pause();
    if (this.#ownsContext && this.context.state !== "closed") await this.context.close().catch(() => undefined);
  }

  #throughElement(): HTMLAudioElement {
    const destination = this.context.createMediaStreamDestination();
    this.#gain.disconnect();
    this.#gain.connect(destination);
    const element = new Audio();
    element.srcObject = destination.stream;
    return element;
  }

  #watch(): void {
    if (!this.#closed) this.#setBlocked(this.context.state !== "running" && this.context.state !== "closed");
  }

  #setBlocked(blocked: boolean): void {
    if (blocked === this.#blocked) return;
    this.#blocked = blocked;
    // Any gesture will do; the page only has to say that one is needed.
    for (const type of ["pointerup", "keydown"] as const) {
      if (blocked) document.addEventListener(type, this.#onGesture, { capture: true, passive: true });
      else document.removeEventListener(type, this.#onGesture, { capture: true });
    }
    this.emit("blocked", blocked);
  }
}
