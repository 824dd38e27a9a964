import type { TrackInfo } from "../control/messages.js";
import { Emitter } from "../events.js";
import type { PausedReason, RemoteTrack, RemoteTrackEvents, TrackKind, TrackSource } from "../types.js";

/** @internal */
export class LiveTrack extends Emitter<RemoteTrackEvents> implements RemoteTrack {
  readonly kind: TrackKind;
  readonly slot: number;
  source: TrackSource;
  codec: string;
  width: number | undefined;
  height: number | undefined;
  visible = true;
  #element: HTMLElement | null = null;
  #serverReason: PausedReason | undefined;
  #undecodable = false;

  constructor(
    readonly participantId: number,
    info: TrackInfo,
    readonly onVisibility: () => void,
  ) {
    super();
    this.kind = info.kind;
    this.slot = info.slot;
    this.source = info.source;
    this.codec = info.codec;
    this.width = info.width;
    this.height = info.height;
  }

  get element(): HTMLElement | null {
    return this.#element;
  }

  get pausedReason(): PausedReason | undefined {
    return this.visible ? (this.#serverReason ?? (this.#undecodable ? "codec" : undefined)) : "hidden";
  }

  setVisible(visible: boolean): void {
    if (visible === this.visible) return;
    this.visible = visible;
    this.onVisibility();
    this.emit("paused", this.pausedReason);
  }

  /** @returns whether anything changed */
  update(info: TrackInfo): boolean {
    const changed = info.codec !== this.codec || info.source !== this.source;
    this.codec = info.codec;
    this.source = info.source;
    // The announced size is only a hint; the decoded one, once known, is the truth.
    this.width ??= info.width;
    this.height ??= info.height;
    return changed;
  }

  setElement(element: HTMLElement): void {
    if (element === this.#element) return;
    this.#element = element;
    // Whatever draws on the new one has its own decoder.
    this.setUndecodable(false);
    this.emit("element", element);
  }

  setSize(width: number, height: number): void {
    if (width === this.width && height === this.height && this.kind === "audio") return;
    this.width = width;
    this.height = height;
    this.emit("resize", width, height);
  }

  /** Whether what arrives cannot be decoded by this browser. */
  setUndecodable(undecodable: boolean): void {
    if (undecodable === this.#undecodable) return;
    this.#undecodable = undecodable;
    this.emit("paused", this.pausedReason);
  }

  setServerPause(reason: PausedReason | undefined): void {
    if (reason === this.#serverReason) return;
    this.#serverReason = reason;
    this.emit("paused", this.pausedReason);
  }
}
