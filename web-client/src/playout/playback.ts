import { Emitter } from "../events.js";
import { RoomError } from "../error.js";
import type { RoomAudio } from "../types.js";
import { joinWindows } from "./spectrum.js";
import workletUrl from "../workers/audio.worklet.ts?worker&url";

/** Samples that an analyser remembers at most (Web Audio API, section 1.8.4). */
const WINDOW = 32_768;

/** A stream of WebRTC that is being played, and what measures it. */
export interface PlayedStream {
  level: AnalyserNode;
  /** What was played in the last second. */
  lastSecond: () => Float32Array<ArrayBuffer>;
  stop: () => void;
}

/** The page's side of playing: the audio context, its worklet, the output device and the volume. */
export class Playback extends Emitter<{ blocked: [boolean]; failed: [string] }> implements RoomAudio {
  /** Made ahead of the next room; making one takes longer than all else that a join does on the page. */
  static #spare: { context: AudioContext; module: Promise<void> } | undefined;

  readonly context: AudioContext;
  /** The worklet, being loaded. */
  readonly #module: Promise<void> | undefined;
  readonly #gain: GainNode;
  readonly #ownsContext: boolean;
  #node: AudioWorkletNode | undefined;
  #blocked = false;
  #closed = false;
  /** For browsers that choose the device on elements only. */
  #element: HTMLAudioElement | undefined;
  /** Play WebRTC's sound, one each. */
  readonly #streams = new Set<HTMLAudioElement>();
  #volume = 1;
  #sink: string | undefined;
  #elementsBlocked = false;
  readonly #onGesture = (): void => void this.resume();
  readonly #onState = (): void => this.#watch();

  constructor(context?: AudioContext) {
    super();
    this.#ownsContext = context === undefined;
    const spare = context ? undefined : Playback.#takeSpare();
    this.context = context ?? spare?.context ?? newContext();
    this.#module = spare?.module;
    this.#gain = this.context.createGain();
    this.#gain.connect(this.context.destination);
    this.context.addEventListener("statechange", this.#onState);
  }

  /** Makes the next room's context ahead. Only after a gesture: before, browsers complain of every one that is made. */
  static prepare(): void {
    if (Playback.#spare || (navigator.userActivation as UserActivation | undefined)?.hasBeenActive !== true) return;
    let context: AudioContext;
    try {
      context = newContext();
    } catch {
      // The room makes its own, and says what is wrong.
      return;
    }
    // It costs nothing while it does not run.
    void context.suspend().catch(() => undefined);
    const module = context.audioWorklet.addModule(workletUrl);
    module.catch(() => undefined);
    Playback.#spare = { context, module };
  }

  static #takeSpare(): { context: AudioContext; module: Promise<void> } | undefined {
    const spare = Playback.#spare;
    Playback.#spare = undefined;
    return spare?.context.state === "closed" ? undefined : spare;
  }

  /** Loads the worklet. @returns the port on which the session worker sends sound */
  async start(): Promise<MessagePort | undefined> {
    try {
      const load = (): Promise<void> => this.context.audioWorklet.addModule(workletUrl);
      await (this.#module?.catch(load) ?? load());
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
    return 1000 * this.context.baseLatency + this.deviceMs;
  }

  /** From the audio system to the ear, ms, as far as the browser knows. */
  get deviceMs(): number {
    return 1000 * ((this.context.outputLatency as number | undefined) ?? 0);
  }

  /** Plays a stream of WebRTC through an element, as browsers want it, and lets it be measured. */
  addStream(stream: MediaStream): PlayedStream {
    const element = new Audio();
    element.srcObject = stream;
    element.volume = this.#volume;
    if (this.#sink !== undefined && "setSinkId" in element) void element.setSinkId(this.#sink).catch(() => undefined);
    this.#streams.add(element);
    void this.#play(element);
    const source = this.context.createMediaStreamSource(stream);
    const listen = (samples: number, to: AudioNode = source): AnalyserNode => {
      const analyser = this.context.createAnalyser();
      analyser.fftSize = samples;
      to.connect(analyser);
      return analyser;
    };
    // The longest window there is covers two thirds of a second; a second one, delayed, has what came before it.
    const { sampleRate } = this.context;
    const delay = this.context.createDelay(1);
    delay.delayTime.value = Math.max(0, 1 - WINDOW / sampleRate);
    source.connect(delay);
    const newer = listen(WINDOW);
    const older = listen(WINDOW, delay);
    return {
      // Read ten times a second for every source, so no longer than it has to be: 85 ms.
      level: listen(4096),
      lastSecond: () => {
        const windows = [older, newer].map((analyser) => {
          const samples = new Float32Array(WINDOW);
          analyser.getFloatTimeDomainData(samples);
          return samples;
        }) as [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>];
        return joinWindows(...windows, Math.round(sampleRate));
      },
      stop: () => {
        source.disconnect();
        delay.disconnect();
        element.srcObject = null;
        this.#streams.delete(element);
      },
    };
  }

  async resume(): Promise<void> {
    if (this.#closed) return;
    this.#elementsBlocked = false;
    await Promise.all([this.context.resume(), this.#element?.play(), ...[...this.#streams].map((element) => this.#play(element))]);
    this.#watch();
  }

  async setSink(deviceId: string): Promise<void> {
    this.#sink = deviceId;
    await Promise.all([...this.#streams].filter((element) => "setSinkId" in element).map((element) => element.setSinkId(deviceId)));
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
    this.#volume = Math.max(0, Math.min(1, volume));
    this.#gain.gain.setTargetAtTime(this.#volume, this.context.currentTime, 0.02);
    for (const element of this.#streams) element.volume = this.#volume;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#setBlocked(false);
    this.context.removeEventListener("statechange", this.#onState);
    this.#node?.disconnect();
    this.#gain.disconnect();
    this.#element?.pause();
    for (const element of this.#streams) element.srcObject = null;
    this.#streams.clear();
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

  async #play(element: HTMLAudioElement): Promise<void> {
    try {
      await element.play();
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return;
      this.#elementsBlocked = true;
      this.#watch();
    }
  }

  #watch(): void {
    if (!this.#closed) this.#setBlocked(this.#elementsBlocked || (this.context.state !== "running" && this.context.state !== "closed"));
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

function newContext(): AudioContext {
  return new AudioContext({ sampleRate: 48_000, latencyHint: "interactive" });
}
