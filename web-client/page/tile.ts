import type { LocalParticipant, Participant, RemoteTrack } from "@wzp/client";
import { flag, icon, initials, make, tone } from "./dom.js";
import type { Rect } from "./layout.js";

export type Picture = "camera" | "screen";

/** One participant's picture, or a screen that it shares: the picture, its name, its marks. */
export class Tile {
  readonly element = make("div", "tile");
  /** When the participant last talked, ms of `performance.now()`. */
  spokeAt = 0;
  /** Since when it has talked without a pause; `undefined` while it is silent. */
  talkingSince: number | undefined;
  /** Whether the layout has a place for it. */
  placed = true;
  /** Whether the browser says that it can be seen. */
  inView = true;
  track: RemoteTrack | undefined;

  private readonly media = make("div", "media");
  private readonly cover = make("div", "cover");
  private readonly overlay = make("div", "overlay");
  private readonly who = make("span", "who");
  private readonly state = make("span", "visually-hidden");
  private readonly pinWords = make("span", "pin-words", "Show me");
  private readonly pinName = make("span", "visually-hidden");
  private readonly pin = make("button", "pin");
  private readonly ring = make("span", "speaking-ring");
  private readonly avatar: HTMLSpanElement;
  private readonly video: HTMLVideoElement | undefined;
  private stopListening: (() => void)[] = [];
  private firstFrame = false;
  private sleepTimer: ReturnType<typeof setTimeout> | undefined;
  private upright = false;
  private level = "";
  private overlayText = "";
  private box: Rect = { x: 0, y: 0, width: 0, height: 0 };
  private shownAspect = 0;

  constructor(
    public participant: Participant,
    readonly picture: Picture,
    onPin: (tile: Tile) => void,
    private readonly onAspect: () => void,
  ) {
    const { element } = this;
    element.dataset.participant = String(participant.id);
    element.dataset.source = picture;
    flag(element, "local", participant.isLocal);
    this.avatar = make("span", `avatar ${tone(participant.fingerprint || String(participant.id))}`, initials(participant.alias));
    this.avatar.setAttribute("aria-hidden", "true");
    this.cover.append(this.avatar);
    this.overlay.hidden = true;

    const plate = make("div", "plate");
    plate.append(icon("mic-off", "quiet"), this.who, this.state);
    if (picture === "screen") plate.prepend(icon("screen"));

    this.pin.type = "button";
    this.pin.append(icon("pin"), this.pinWords, this.pinName);
    this.pin.addEventListener("click", () => onPin(this));
    element.addEventListener("dblclick", (event) => {
      if (!this.pin.contains(event.target as Node)) onPin(this);
    });
    element.addEventListener("pointerup", (event) => {
      if (event.pointerType !== "mouse" && !this.pin.contains(event.target as Node)) this.wake();
    });

    this.ring.setAttribute("aria-hidden", "true");
    if (participant.isLocal) {
      this.video = make("video");
      this.video.muted = true;
      this.video.autoplay = true;
      this.video.playsInline = true;
      this.video.addEventListener("resize", () => this.fit());
      this.video.addEventListener("loadeddata", () => {
        this.firstFrame = true;
        this.update(this.participant);
      });
    }
    element.append(this.media, this.cover, this.overlay, plate, this.pin, this.ring);
    this.setPinned(false);
    this.update(participant);
  }

  /** The own picture: straight from the device, without a trip to the gateway. */
  showLocal(track: MediaStreamTrack | undefined): void {
    const { video } = this;
    if (!video) return;
    const stream = video.srcObject instanceof MediaStream ? video.srcObject : undefined;
    if (stream?.getVideoTracks()[0] === track && (track || !video.isConnected)) return;
    this.firstFrame = false;
    if (track) {
      video.srcObject = new MediaStream([track]);
      this.media.replaceChildren(video);
      video.play().catch(() => undefined);
    } else {
      video.srcObject = null;
      video.remove();
    }
    this.update(this.participant);
  }

  /** The picture of a remote track; `undefined` when it has ended. */
  showRemote(track: RemoteTrack | undefined): void {
    if (track === this.track) return;
    for (const stop of this.stopListening.splice(0)) stop();
    this.track = track;
    this.firstFrame = false;
    this.media.replaceChildren();
    if (track) {
      this.stopListening.push(
        track.on("element", () => this.attach()),
        track.on("resize", () => this.fit()),
        track.on("paused", () => this.update(this.participant)),
        track.on("firstframe", () => {
          this.firstFrame = true;
          this.update(this.participant);
        }),
      );
      this.attach();
      this.applyVisibility();
      this.tellSize();
    }
    this.update(this.participant);
  }

  update(participant: Participant): void {
    this.participant = participant;
    const { element, picture, track } = this;
    const { alias, isLocal } = participant;
    const title = picture === "screen" ? (isLocal ? "Your screen" : `${alias}, screen`) : isLocal ? `${alias} (you)` : alias;
    if (this.who.textContent !== title) {
      this.who.textContent = title;
      this.avatar.textContent = initials(alias);
      this.pinName.textContent = ` ${title}`;
      this.label();
    }
    const muted = silent(participant);
    const reconnecting = participant.state === "reconnecting";
    const paused = track?.pausedReason;
    const cameraOff = picture === "camera" && participant.muted.video;
    flag(element, "muted", muted);
    flag(element, "reconnecting", reconnecting);
    flag(element, "picture", this.firstFrame && !cameraOff && (isLocal ? this.video?.srcObject instanceof MediaStream : track !== undefined));
    this.setOverlay(
      reconnecting
        ? "Reconnecting…"
        : cameraOff || isLocal
          ? ""
          : paused === "bandwidth"
            ? "Picture paused: the connection is slow. Sound goes on."
            : paused === "codec"
              ? `This browser cannot show this picture (${codecName(track?.codec)}). Sound goes on.`
              : "",
    );
    const words = [muted && picture === "camera" ? "muted" : "", reconnecting ? "reconnecting" : ""].filter(Boolean).join(", ");
    this.state.textContent = words ? `, ${words}` : "";
  }

  /** Called several times a second while the call goes on. */
  tick(participant: Participant, now: number): void {
    const { element } = this;
    if (this.picture === "camera") {
      const speaking = participant.speaking && !silent(participant);
      flag(element, "speaking", speaking);
      this.talkingSince = speaking ? (this.talkingSince ?? now) : undefined;
      if (speaking) {
        this.spokeAt = now;
        // In coarse steps and on the ring alone: every change costs the browser a new look at the styles below.
        const level = (Math.round(Math.min(1, participant.audioLevel * 4) * 5) / 5).toFixed(1);
        if (level !== this.level) this.ring.style.setProperty("--level", (this.level = level));
      }
    }
    if (!this.firstFrame && hasPixels(this.media.firstElementChild)) {
      this.firstFrame = true;
      this.update(participant);
    }
  }

  place(rect: Rect): void {
    const { style } = this.element;
    style.setProperty("--x", `${rect.x}px`);
    style.setProperty("--y", `${rect.y}px`);
    style.setProperty("--w", `${rect.width}px`);
    style.setProperty("--h", `${rect.height}px`);
    this.box = rect;
    this.tellSize();
    this.fit();
  }

  get left(): number {
    return this.box.x;
  }

  get top(): number {
    return this.box.y;
  }

  /** Whether an element is the tile's button. */
  holds(target: EventTarget | null): boolean {
    return target === this.pin;
  }

  focus(): void {
    this.pin.focus({ preventScroll: true });
  }

  /** Whether the Tab key stops here. */
  setStop(on: boolean): void {
    this.pin.tabIndex = on ? 0 : -1;
  }

  setPinned(pinned: boolean): void {
    this.pin.setAttribute("aria-pressed", String(pinned));
  }

  applyVisibility(): void {
    this.track?.setVisible(this.placed && this.inView && !document.hidden);
  }

  remove(): void {
    for (const stop of this.stopListening.splice(0)) stop();
    if (this.video) this.video.srcObject = null;
    this.element.remove();
  }

  /** Width by height of the picture; 16:9 while there is none. */
  get aspect(): number {
    const { width, height } = sizeOf(this.media.firstElementChild);
    return width && height ? width / height : 16 / 9;
  }

  /** Nobody needs to send more than the tile shows. */
  private tellSize(): void {
    this.track?.setShownSize(this.box.width * devicePixelRatio, this.box.height * devicePixelRatio);
  }

  /** Shows the button for a while. */
  private wake(): void {
    clearTimeout(this.sleepTimer);
    flag(this.element, "awake", true);
    this.sleepTimer = setTimeout(() => flag(this.element, "awake", false), 3000);
  }

  private attach(): void {
    const picture = this.track?.element;
    if (!picture || this.media.firstElementChild === picture) return;
    this.media.replaceChildren(picture);
    this.label();
    this.fit();
  }

  private label(): void {
    const target = this.video ?? this.track?.element;
    if (!target) return;
    target.setAttribute("aria-label", this.participant.alias);
    if (target instanceof HTMLCanvasElement) target.setAttribute("role", "img");
  }

  /** Screens are shown whole; of faces as much is cut away as makes the tile full, but never more than a good third. */
  private fit(): void {
    const source = this.media.firstElementChild;
    const { width, height } = sizeOf(source);
    let whole = this.picture === "screen";
    if (width && height && this.box.width && this.box.height) {
      const ratio = width / height / (this.box.width / this.box.height);
      whole ||= Math.min(ratio, 1 / ratio) < 0.55;
    }
    this.element.dataset.fit = whole ? "contain" : "cover";
    const { aspect } = this;
    const upright = aspect < 1;
    // Of faces only the direction matters, of screens all.
    if (upright === this.upright && (this.picture !== "screen" || Math.abs(aspect - this.shownAspect) < 0.02)) return;
    this.upright = upright;
    this.shownAspect = aspect;
    this.onAspect();
  }

  private setOverlay(text: string): void {
    if (text === this.overlayText) return;
    this.overlayText = text;
    this.overlay.hidden = !text;
    const symbol = this.participant.state === "reconnecting" ? "again" : this.track?.pausedReason === "codec" ? "warning" : "freeze";
    this.overlay.replaceChildren(...(text ? [icon(symbol), make("p", "", text)] : []));
  }
}

/** Switched off, or without a microphone altogether. */
export function silent(participant: Participant): boolean {
  if (participant.muted.audio) return true;
  if (isLocal(participant)) return !participant.publications.some(({ kind, muted, state }) => kind === "audio" && !muted && state !== "failed");
  return !participant.tracks.some(({ kind }) => kind === "audio");
}

function isLocal(participant: Participant): participant is LocalParticipant {
  return participant.isLocal;
}

function sizeOf(source: Element | null): { width: number; height: number } {
  if (source instanceof HTMLVideoElement) return { width: source.videoWidth, height: source.videoHeight };
  if (source instanceof HTMLCanvasElement) return { width: source.width, height: source.height };
  return { width: 0, height: 0 };
}

/** A canvas that nobody drew on has its default size, 300 by 150. */
function hasPixels(source: Element | null): boolean {
  const { width, height } = sizeOf(source);
  return width > 0 && !(source instanceof HTMLCanvasElement && width === 300 && height === 150);
}

function codecName(codec: string | undefined): string {
  return codec === "h264" ? "H.264" : codec === "h265" ? "H.265" : codec === "av1" ? "AV1" : (codec ?? "unknown format");
}
