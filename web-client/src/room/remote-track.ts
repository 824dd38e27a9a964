import type { TrackInfo } from "../control/messages.js";
import { Emitter } from "../events.js";
import { neededSide } from "../media/picture-size.js";
import type { PausedReason, RemoteTrack, RemoteTrackEvents, TrackKind, TrackSource } from "../types.js";

/** @internal */
export class LiveTrack extends Emitter<RemoteTrackEvents> implements RemoteTrack {
  readonly kind: TrackKind;
  readonly slot: number;
  source: TrackSource;
  codec: string;
  width: number | undefined;
  height: number | undefined;
  /** When its first picture was shown, whichever road it came by (epoch, ms); 0: not yet. */
  firstShownAt = 0;
  #visible = true;
  #subscribed = true;
  #shown = { width: 0, height: 0 };
  /** Of this shape. */
  #shape = { width: 16, height: 9 };
  #side: number | undefined;
  #element: HTMLElement | null = null;
  #serverReason: PausedReason | undefined;
  #undecodable = false;

  constructor(
    readonly participantId: number,
    info: TrackInfo,
    readonly onVisibility: () => void,
    readonly onSide: () => void,
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

  /** What is needed of the picture's shorter side, px; `undefined`: no bound. */
  get side(): number | undefined {
    return this.#side;
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

  setShownSize(width: number, height: number): void {
    this.#shown = { width, height };
    this.#updateSide();
  }

  /** Screens are for reading. */
  #updateSide(): void {
    const { width = 0, height = 0 } = this;
    // Small pictures are off by a pixel: that must not ask for a larger one, which would not be off and ask for a small one again.
    const change = (width / height) * (this.#shape.height / this.#shape.width);
    if (width > 0 && height > 0 && Math.abs(change - 1) > 0.02) this.#shape = { width, height };
    const side = this.source === "camera" ? neededSide(this.#shape, this.#shown) : undefined;
    if (side === this.#side) return;
    this.#side = side;
    this.onSide();
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
    this.#updateSide();
    return changed;
  }

  setElement(element: HTMLElement): void {
    if (element === this.#element) return;
    this.#element = element;
    // Whatever draws on the new one has its own decoder.
    this.setUndecodable(false);
    this.emit("element", element);
  }

  /** The first picture of a road, or of a decoder, is shown. */
  setFirst(at: number): void {
    this.firstShownAt ||= at;
    this.emit("firstframe");
  }

  setSize(width: number, height: number): void {
    if (width === this.width && height === this.height && this.kind === "audio") return;
    this.width = width;
    this.height = height;
    this.#updateSide();
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
