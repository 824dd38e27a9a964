import { byId, make } from "./dom.js";
import type { Device, LocalMedia } from "./media.js";
import { recall, remember } from "./storage.js";

const NAMES: Record<MediaDeviceKind, string> = { audioinput: "Microphone", videoinput: "Camera", audiooutput: "Speaker" };
const DEVICE = { audioinput: "microphone", videoinput: "camera" } as const satisfies Record<string, Device>;

/** Whether the browser can play to a device of the person's choice. */
export function canChooseSpeaker(): boolean {
  return "setSinkId" in AudioContext.prototype || "setSinkId" in HTMLMediaElement.prototype;
}

/** The three device lists of the lobby (`lobby-…`) or the settings (`call-…`). */
export class DeviceLists {
  private readonly lists: Record<MediaDeviceKind, HTMLSelectElement>;

  constructor(
    private readonly prefix: "lobby" | "call",
    private readonly media: LocalMedia,
    private readonly onSpeaker: (deviceId: string) => void = () => undefined,
  ) {
    this.lists = {
      audioinput: byId(`${prefix}-audioinput`, HTMLSelectElement),
      videoinput: byId(`${prefix}-videoinput`, HTMLSelectElement),
      audiooutput: byId(`${prefix}-audiooutput`, HTMLSelectElement),
    };
    for (const kind of ["audioinput", "videoinput"] as const) {
      const list = this.lists[kind];
      list.addEventListener("change", () => void media.choose(DEVICE[kind], list.value));
    }
    this.lists.audiooutput.addEventListener("change", () => {
      remember("audiooutput", this.lists.audiooutput.value);
      this.onSpeaker(this.lists.audiooutput.value);
    });
    media.onChange(() => this.update());
    this.update();
  }

  update(): void {
    const { media, prefix } = this;
    this.fill("audioinput", media.track("microphone"));
    this.fill("videoinput", media.track("camera"));
    this.fill("audiooutput", undefined);
    byId(`${prefix}-audiooutput-field`).hidden = !canChooseSpeaker() || media.list("audiooutput").length === 0;
  }

  /** Before the person has answered the browser's question, and after "no", nobody knows which devices there are. */
  private noneWords(kind: "audioinput" | "videoinput"): string {
    const { media } = this;
    const trouble = media.trouble[DEVICE[kind]];
    switch (trouble) {
      case "denied":
        return "Not allowed";
      case "insecure":
        return "Not available here";
      default:
        // Before the answer the browser tells that there are devices, but not which.
        return trouble || (media.listed && !media.devices.some((device) => device.kind === kind)) ? "None found" : "Not known yet";
    }
  }

  private fill(kind: MediaDeviceKind, track: MediaStreamTrack | undefined): void {
    const list = this.lists[kind];
    const devices = this.media.list(kind);
    const wanted = devices.map((device, index) => ({ value: device.deviceId, text: device.label || `${NAMES[kind]} ${index + 1}` }));
    if (!wanted.length) wanted.push({ value: "", text: kind === "audiooutput" ? "System default" : this.noneWords(kind) });
    // An open list that is filled anew closes in the person's face: only when something changed.
    const same = list.options.length === wanted.length && wanted.every(({ value, text }, index) => list.options[index]?.value === value && list.options[index].text === text);
    if (!same) {
      list.replaceChildren(
        ...wanted.map(({ value, text }) => {
          const option = make("option", "", text);
          option.value = value;
          return option;
        }),
      );
    }
    list.disabled = !devices.length;
    const current = track?.getSettings().deviceId ?? recall(kind);
    if (wanted.some(({ value }) => value === current)) list.value = current;
  }
}
