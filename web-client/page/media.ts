import { recall, remember } from "./storage.js";

export type Device = "microphone" | "camera";

/** Why there is no track of a device. */
export type Trouble = "denied" | "missing" | "busy" | "insecure" | "lost" | "failed";

const KIND = { microphone: "audioinput", camera: "videoinput" } as const;

/** So long a call has for taking up the new track before the old one is closed. */
const RETIRE_MS = 1000;

/**
 * The person's own microphone and camera: opens and closes them, remembers the choice, finds another one when a device
 * is unplugged. `track` listeners hear of every exchange, so a call has only to follow.
 */
export class LocalMedia {
  /** What the person wants: to be heard, to be seen. */
  readonly on: Record<Device, boolean>;
  readonly trouble: Record<Device, Trouble | undefined> = { microphone: undefined, camera: undefined };
  devices: MediaDeviceInfo[] = [];
  /** Whether the browser has told which devices there are. */
  listed = false;

  private readonly tracks: Record<Device, MediaStreamTrack | undefined> = { microphone: undefined, camera: undefined };
  private readonly listeners = new Set<() => void>();
  private readonly lossListeners = new Set<(device: Device, label: string, replacement: string | undefined) => void>();
  /** Replaced tracks that go on for a moment. */
  private readonly retiring = new Set<MediaStreamTrack>();
  private queue: Promise<void> = Promise.resolve();
  /** Whether devices are wanted at all: between the first `open` and `closeAll`. */
  private wanted = false;
  /** How often everything was closed. A device that was asked for before the last time is not kept when it comes. */
  private closings = 0;

  constructor(
    private readonly processing: boolean,
    on: Record<Device, boolean>,
  ) {
    this.on = on;
    // Absent outside a secure context, whatever the types say.
    const devices = navigator.mediaDevices as MediaDevices | undefined;
    devices?.addEventListener("devicechange", () => void this.deviceChange());
  }

  track(device: Device): MediaStreamTrack | undefined {
    return this.tracks[device];
  }

  /** Called whenever a track, a trouble or the list of devices changed. */
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Called when a device went away while in use, with the label of its replacement if one was found. */
  onLoss(listener: (device: Device, label: string, replacement: string | undefined) => void): () => void {
    this.lossListeners.add(listener);
    return () => this.lossListeners.delete(listener);
  }

  /** Opens devices that are not open. Never rejects: `trouble` says what went wrong. */
  open(...devices: Device[]): Promise<void> {
    this.wanted = true;
    return this.inTurn(async (stale) => {
      const missing = devices.filter((device) => !this.tracks[device]);
      if (missing.length) await this.acquire(missing, stale);
      this.changed();
    });
  }

  /** Goes on with another device and remembers it. */
  choose(device: Device, deviceId: string): Promise<void> {
    remember(KIND[device], deviceId);
    if (!this.wanted) return Promise.resolve();
    return this.inTurn(async (stale) => {
      if (device === "camera" && !this.on.camera) return;
      // The old track goes on until the new one has taken its place, so that the others see no gap …
      const before = this.tracks[device];
      if (before?.getSettings().deviceId === deviceId) return;
      await this.acquire([device], stale);
      if (before && this.tracks[device] === before && !stale()) {
        // … but some phones open only one camera at a time.
        before.stop();
        await this.acquire([device], stale);
        if (this.tracks[device] === before) this.tracks[device] = undefined;
      }
      if (before) this.retire(before);
      this.changed();
    });
  }

  /** Switches a device off. The camera is closed, so that its light goes out; the microphone stays open, silent. */
  async set(device: Device, on: boolean): Promise<void> {
    this.on[device] = on;
    if (device === "camera" && !on) this.close("camera");
    else if (on && !this.tracks[device]) await this.open(device);
    this.changed();
  }

  close(device: Device): void {
    const track = this.tracks[device];
    this.tracks[device] = undefined;
    track?.stop();
    this.changed();
  }

  /** Closes everything, also what the browser is still asking the person about. */
  closeAll(): void {
    this.wanted = false;
    this.closings += 1;
    for (const track of this.retiring) track.stop();
    this.retiring.clear();
    this.close("microphone");
    this.close("camera");
  }

  /** The devices of a kind, as far as the browser lets us know them. */
  list(kind: MediaDeviceKind): MediaDeviceInfo[] {
    return this.devices.filter((device) => device.kind === kind && device.deviceId !== "");
  }

  /** One thing after the other; `stale` tells the work whether everything was closed since it was asked for. */
  private inTurn(work: (stale: () => boolean) => Promise<void>): Promise<void> {
    const { closings } = this;
    const stale = (): boolean => closings !== this.closings;
    const turn = async (): Promise<void> => {
      if (!stale()) await work(stale);
    };
    this.queue = this.queue.then(turn, turn);
    return this.queue;
  }

  private retire(track: MediaStreamTrack): void {
    this.retiring.add(track);
    setTimeout(() => {
      track.stop();
      this.retiring.delete(track);
    }, RETIRE_MS);
  }

  private changed(): void {
    const microphone = this.tracks.microphone;
    if (microphone) microphone.enabled = this.on.microphone;
    for (const listener of [...this.listeners]) listener();
  }

  private async acquire(devices: Device[], stale: () => boolean): Promise<void> {
    const mediaDevices = navigator.mediaDevices as MediaDevices | undefined;
    if (!mediaDevices) {
      for (const device of devices) this.trouble[device] = "insecure";
      return;
    }
    try {
      this.keep(await mediaDevices.getUserMedia(this.constraints(devices, true)), devices, stale);
    } catch (error) {
      if (!stale()) await this.acquireOneByOne(mediaDevices, devices, error, stale);
    }
    await this.refreshDevices();
  }

  /** Both at once means one question to the person; if that fails, one of the two may still do. */
  private async acquireOneByOne(mediaDevices: MediaDevices, devices: Device[], first: unknown, stale: () => boolean): Promise<void> {
    let candidates = devices;
    if (troubleOf(first) === "denied") {
      const states = await Promise.all(devices.map(permission));
      const denied = states.includes("denied");
      candidates = denied && devices.length > 1 ? devices.filter((_, index) => states[index] !== "denied") : [];
      // A question that was merely dismissed is not put again at once.
      for (const device of devices) if (!candidates.includes(device)) this.trouble[device] = "denied";
    }
    for (const device of candidates) {
      let failure: unknown = first;
      for (const exact of devices.length > 1 ? [true, false] : [false]) {
        if (stale()) return;
        try {
          this.keep(await mediaDevices.getUserMedia(this.constraints([device], exact)), [device], stale);
          failure = undefined;
          break;
        } catch (error) {
          failure = error;
          if (troubleOf(error) === "denied") break;
        }
      }
      if (failure !== undefined) this.trouble[device] = troubleOf(failure);
    }
  }

  private keep(stream: MediaStream, devices: Device[], stale: () => boolean): void {
    if (stale()) {
      // Nobody wants it any more: its light goes out at once.
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    for (const device of devices) {
      const track = device === "microphone" ? stream.getAudioTracks()[0] : stream.getVideoTracks()[0];
      if (!track) {
        this.trouble[device] = "missing";
        continue;
      }
      if (!this.on[device] && device === "camera") {
        track.stop();
        continue;
      }
      if (device === "camera") track.contentHint = "motion";
      this.tracks[device] = track;
      this.trouble[device] = undefined;
      track.addEventListener("ended", () => void this.lost(device, track));
    }
  }

  private constraints(devices: Device[], exact: boolean): MediaStreamConstraints {
    const chosen = (device: Device): MediaTrackConstraints => {
      const deviceId = recall(KIND[device]);
      return exact && deviceId ? { deviceId: { exact: deviceId } } : {};
    };
    const { processing } = this;
    return {
      audio: devices.includes("microphone") && {
        ...chosen("microphone"),
        echoCancellation: processing,
        noiseSuppression: processing,
        autoGainControl: processing,
      },
      video: devices.includes("camera") && {
        facingMode: "user",
        ...chosen("camera"),
        width: { ideal: 1280 },
        height: { ideal: 720 },
        frameRate: { ideal: 30 },
      },
    };
  }

  /** A track ended without our doing: unplugged, or taken back by the browser. */
  private async lost(device: Device, track: MediaStreamTrack): Promise<void> {
    if (this.tracks[device] !== track) return;
    const loss = { real: false };
    await this.inTurn(async (stale) => {
      if (this.tracks[device] !== track) return;
      loss.real = true;
      this.tracks[device] = undefined;
      this.trouble[device] = "lost";
      await this.refreshDevices();
      if (!this.list(KIND[device]).length) return;
      await this.acquire([device], stale);
      // Whatever keeps the replacement from working: what matters to the person is that this device went away.
      if (!this.track(device)) this.trouble[device] = "lost";
    });
    // It was replaced meanwhile, or everything was closed.
    if (!loss.real || !this.wanted) return;
    this.changed();
    const replacement = this.track(device)?.label;
    for (const listener of [...this.lossListeners]) listener(device, track.label, replacement);
  }

  private async deviceChange(): Promise<void> {
    if (!this.wanted) return;
    await this.refreshDevices();
    // While the browser told us of its devices, everything may have been closed.
    if (!this.isWanted()) return;
    const back = (["microphone", "camera"] as const).filter(
      (device) => this.on[device] && (this.trouble[device] === "missing" || this.trouble[device] === "lost") && this.list(KIND[device]).length > 0,
    );
    if (back.length) await this.open(...back);
    this.changed();
  }

  private isWanted(): boolean {
    return this.wanted;
  }

  private async refreshDevices(): Promise<void> {
    this.devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
    this.listed = true;
  }
}

function troubleOf(error: unknown): Trouble {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotFoundError":
    case "OverconstrainedError":
      return "missing";
    case "NotReadableError":
    case "AbortError":
      return "busy";
    default:
      return "failed";
  }
}

async function permission(device: Device): Promise<PermissionState | "unknown"> {
  try {
    return (await navigator.permissions.query({ name: device })).state;
  } catch {
    return "unknown";
  }
}
