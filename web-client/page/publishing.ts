import type { Publication, Room } from "@wzp/client";
import type { Device, LocalMedia } from "./media.js";

/** Keeps what the room gets in step with the person's devices and switches. */
export class Publishing {
  /** Held while muted: on air for so long. */
  talking = false;

  private readonly publications: Record<Device, Publication | undefined> = { microphone: undefined, camera: undefined };
  private screen: Publication | undefined;
  private queue: Promise<void> = Promise.resolve();
  /** The browser is asking which screen, or the room is taking it. */
  private sharingSoon = false;
  private readonly unsubscribe: () => void;
  private done = false;

  constructor(
    private readonly room: Room,
    private readonly media: LocalMedia,
    private readonly changed: () => void,
    private readonly failed: (what: string) => void,
  ) {
    this.unsubscribe = media.onChange(() => this.sync());
    this.sync();
  }

  get sharing(): boolean {
    return this.screen !== undefined;
  }

  /** Whether the others can hear the person now. */
  get live(): boolean {
    return this.media.on.microphone || this.talking;
  }

  setTalking(on: boolean): void {
    if (this.done || this.talking === on) return;
    this.talking = on;
    this.sync();
  }

  sync(): void {
    const microphone = this.media.track("microphone");
    if (microphone) microphone.enabled = this.live;
    this.queue = this.queue
      .then(() => this.follow("microphone", this.live))
      .then(() => this.follow("camera", this.media.on.camera))
      .catch((error: unknown) => {
        if (!this.done) this.failed(error instanceof Error ? error.message : String(error));
      })
      .then(() => this.tell());
  }

  /** Asks which screen to share and shares it. A second call while the first is being answered does nothing. */
  async share(): Promise<void> {
    if (this.sharingSoon || this.screen) return;
    this.sharingSoon = true;
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15, max: 30 } }, audio: false });
      const track = stream.getVideoTracks()[0];
      if (track) await this.publishScreen(track);
    } finally {
      this.sharingSoon = false;
    }
    this.tell();
  }

  async unshare(): Promise<void> {
    const { screen } = this;
    this.screen = undefined;
    screen?.track.stop();
    await screen?.stop().catch(() => undefined);
    this.tell();
  }

  dispose(): void {
    this.done = true;
    this.unsubscribe();
    this.screen?.track.stop();
  }

  /** A call that is over is told nothing any more. */
  private tell(): void {
    if (!this.done) this.changed();
  }

  private async publishScreen(track: MediaStreamTrack): Promise<void> {
    if (this.done) {
      track.stop();
      return;
    }
    track.contentHint = "detail";
    track.addEventListener("ended", () => {
      if (this.screen?.track === track) void this.unshare();
    });
    try {
      this.screen = await this.room.publish(track, { source: "screen" });
    } catch (error) {
      track.stop();
      throw error;
    }
    // Meanwhile the call was left, or the browser's own button pressed.
    if (this.isOver()) track.stop();
    if (track.readyState === "ended") await this.unshare();
  }

  private isOver(): boolean {
    return this.done;
  }

  private async follow(device: Device, on: boolean): Promise<void> {
    const track = this.media.track(device);
    const publication = this.publications[device];
    if (this.done) return;
    if (!publication) {
      if (!track || track.readyState === "ended") return;
      const made = await this.room.publish(track, { source: device });
      this.publications[device] = made;
      if (!on) await made.mute(true);
      return;
    }
    const live = on && track !== undefined;
    if (!live && !publication.muted) await publication.mute(true);
    if (track && publication.track !== track) await publication.replaceTrack(track);
    if (live && publication.muted) await publication.mute(false);
  }
}
