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
  #visible = true;
  #subscribed = true;
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
    if (!this.#subscribed) return "unsubscribed";
    return this.#visible ? (this.#serverReason ?? (this.#undecodable ? "codec" : undefined)) : "hidden";
  }

  get subscribed(): boolean {
    return this.#subscribed;
  }

  /** Whether the gateway is to send the track. */
  get wanted(): boolean {
    return this.#subscribed && this.#visible;
  }

  subscribe(): void {
    this.#want(true, this.#visible);
  }

  unsubscribe(): void {
    this.#want(false, this.#visible);
  }

  setVisible(visible: boolean): void {
    this.#want(this.#subscribed, visible);
  }

  #want(subscribed: boolean, visible: boolean): void {
    const before = { reason: this.pausedReason, wanted: this.wanted };
    this.#subscribed = subscribed;
    this.#visible = visible;
    if (this.wanted !== before.wanted) this.onVisibility();
    if (this.pausedReason !== before.reason) this.emit("paused", this.pausedReason);
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
    const before = this.pausedReason;
    this.#serverReason = reason;
    if (this.pausedReason !== before) this.emit("paused", this.pausedReason);
  }
}
