import { byId, face, flag, make } from "./dom.js";
import { DeviceLists } from "./devices.js";
import { showLevel, watchLevel } from "./level.js";
import type { Device, LocalMedia } from "./media.js";
import { inventRoom, roomProblem } from "./parameters.js";
import { remember } from "./storage.js";
import { troublesWords } from "./words.js";

export interface Entry {
  name: string;
  room: string;
  token: string | undefined;
}

interface RoomPreview {
  members: { name: string; door: string }[];
}

const LOOK_EVERY_MS = 10_000;

/** The page before joining: who one will be, where one goes, and whether microphone and camera work. */
export class Lobby {
  private readonly nameField = byId("name", HTMLInputElement);
  private readonly roomField = byId("room", HTMLInputElement);
  private readonly tokenField = byId("token", HTMLInputElement);
  private readonly video = byId("preview-video", HTMLVideoElement);
  private readonly frame = byId("preview-frame");
  private readonly meter = byId("lobby-level");
  private readonly people = byId("room-people");
  private stopLevel: (() => void) | undefined;
  private levelTrack: MediaStreamTrack | undefined;
  private lookTimer: ReturnType<typeof setTimeout> | undefined;
  private looked: AbortController | undefined;
  private visible = false;
  private opened = false;
  private mayAsk = true;
  /** The page itself sets the focus. */
  private focusing = false;

  constructor(
    private readonly media: LocalMedia,
    private readonly enter: (entry: Entry) => void,
    /** Somebody is about to join this room. */
    private readonly expect: (room: string) => void,
  ) {
    new DeviceLists("lobby", media);
    media.onChange(() => this.update());
    byId("join-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    for (const sign of ["pointerenter", "pointerdown", "focus"]) {
      byId("join").addEventListener(sign, () => {
        // The page itself sets the focus there: that is no sign that anybody will join.
        if (this.focusing) return;
        const room = this.roomField.value.trim();
        if (!roomProblem(room)) this.expect(room);
      });
    }
    byId("invent-room").addEventListener("click", () => {
      this.roomField.value = inventRoom();
      this.complain("room", undefined);
      this.roomField.focus();
      this.look(0);
    });
    this.nameField.addEventListener("input", () => this.complain("name", undefined));
    this.roomField.addEventListener("input", () => {
      this.complain("room", undefined);
      this.people.replaceChildren();
      this.look(500);
    });
    this.tokenField.addEventListener("input", () => {
      this.mayAsk = true;
      this.look(500);
    });
    this.wireSwitch("lobby-mic", "microphone");
    this.wireSwitch("lobby-camera", "camera");
  }

  fill({ name, room, token }: Entry): void {
    this.nameField.value = name;
    this.roomField.value = room;
    this.tokenField.value = token ?? "";
  }

  /** Shows the field for a token, which most gateways do not want. */
  askToken(): void {
    byId("token-field").hidden = false;
  }

  /** Starts preview and meters. */
  show(): void {
    this.visible = true;
    this.opened = false;
    this.mayAsk = true;
    this.update();
    void this.media.open(...(this.media.on.camera ? (["microphone", "camera"] as const) : (["microphone"] as const))).then(() => {
      this.opened = true;
      this.update();
    });
    this.look(0);
    this.focusing = true;
    (this.nameField.value ? (this.roomField.value ? byId("join") : this.roomField) : this.nameField).focus({ preventScroll: true });
    this.focusing = false;
  }

  hide(): void {
    this.visible = false;
    clearTimeout(this.lookTimer);
    this.looked?.abort();
    this.update();
  }

  private submit(): void {
    const name = this.nameField.value.trim();
    const room = this.roomField.value.trim();
    const roomTrouble = roomProblem(room);
    this.complain("room", roomTrouble);
    this.complain("name", name ? undefined : "Tell the others who you are.");
    if (!name) this.nameField.focus();
    else if (roomTrouble) this.roomField.focus();
    else {
      remember("name", name);
      this.enter({ name, room, token: this.tokenField.value.trim() || undefined });
    }
  }

  private complain(field: "name" | "room", problem: string | undefined): void {
    byId(`${field}-error`).textContent = problem ?? "";
    const input = field === "name" ? this.nameField : this.roomField;
    if (problem) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }

  private wireSwitch(id: string, device: Device): void {
    byId(id).addEventListener("click", () => {
      // A device that was refused or missing is asked for again.
      const on = byId(id).getAttribute("aria-checked") !== "true";
      remember(device, on ? "on" : "off");
      void this.media.set(device, on);
    });
  }

  private update(): void {
    const { media, video, frame } = this;
    byId("lobby-mic").setAttribute("aria-checked", String(media.on.microphone && !media.trouble.microphone));
    byId("lobby-camera").setAttribute("aria-checked", String(media.on.camera && !media.trouble.camera));
    const camera = this.visible ? media.track("camera") : undefined;
    const shown = video.srcObject instanceof MediaStream ? video.srcObject.getVideoTracks()[0] : undefined;
    if (shown !== camera) {
      video.srcObject = camera ? new MediaStream([camera]) : null;
      if (camera) video.play().catch(() => undefined);
    }
    frame.dataset.camera = camera ? "on" : "none";
    byId("preview-words").textContent = !media.on.camera
      ? "Your camera is off"
      : media.trouble.camera
        ? "No picture from your camera"
        : this.opened
          ? ""
          : "Starting your camera…";
    const problem = byId("lobby-problem");
    const words = troublesWords({ microphone: media.trouble.microphone, camera: media.on.camera ? media.trouble.camera : undefined });
    if (problem.textContent !== words) problem.textContent = words;
    problem.hidden = !words;
    this.updateLevel();
  }

  private updateLevel(): void {
    const { media, meter } = this;
    const words = byId("lobby-level-words");
    const track = this.visible && media.on.microphone ? media.track("microphone") : undefined;
    if (track !== this.levelTrack || !track) {
      this.stopLevel?.();
      this.levelTrack = track;
      this.stopLevel = undefined;
      showLevel(meter, 0);
      if (track) {
        let heard = 0;
        this.stopLevel = watchLevel(track, (level) => {
          showLevel(meter, level);
          if (level > 0.35 && heard < 5) heard += 1;
          if (heard === 5 && words.textContent === "Say something") words.textContent = "Sounds good";
        });
      }
      words.textContent = track ? "Say something" : media.trouble.microphone ? "No sound" : media.on.microphone ? "Starting…" : "Muted";
    }
    flag(meter, "off", !track);
  }

  /** Asks who is in the room, now and every few seconds; a gateway that does not answer is no trouble. */
  private look(delay: number): void {
    clearTimeout(this.lookTimer);
    this.looked?.abort();
    if (!this.visible || !this.mayAsk) return;
    this.lookTimer = setTimeout(() => {
      const room = this.roomField.value.trim();
      if (roomProblem(room)) return;
      const looked = new AbortController();
      this.looked = looked;
      void this.ask(room, looked.signal).then(() => {
        if (!looked.signal.aborted) this.look(LOOK_EVERY_MS);
      });
    }, delay);
  }

  private async ask(room: string, signal: AbortSignal): Promise<void> {
    try {
      const token = this.tokenField.value.trim();
      const headers = { accept: "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) };
      const answer = await fetch(`/api/rooms/${encodeURIComponent(room)}`, { signal, headers });
      // A gateway with tokens tells only those who have one. Asking again would not change that.
      this.mayAsk = answer.status !== 401 && answer.status !== 403;
      if (!this.mayAsk) this.askToken();
      if (answer.status === 404) {
        this.showPeople([]);
        return;
      }
      if (!answer.ok || !(answer.headers.get("content-type") ?? "").includes("json")) return;
      const preview = (await answer.json()) as Partial<RoomPreview>;
      if (!signal.aborted && Array.isArray(preview.members)) this.showPeople(preview.members);
    } catch {
      // Offline, or an older gateway: the line stays empty.
    }
  }

  private showPeople(members: RoomPreview["members"]): void {
    const names = members.map(({ name }) => name);
    const text = peopleWords(names);
    if (this.people.textContent.endsWith(text) && this.people.childElementCount > 0) return;
    const faces = make("span", "faces");
    faces.append(...members.slice(0, 5).map(({ name }) => face(name, name)));
    this.people.replaceChildren(...(members.length ? [faces] : []), make("span", "", text));
  }
}

/** "Ana, Ben and 3 more are here". */
export function peopleWords(names: string[]): string {
  const [first, second, third] = names;
  if (first === undefined) return "Nobody is here yet. You will be the first.";
  if (second === undefined) return `${first} is here`;
  if (third === undefined) return `${first} and ${second} are here`;
  if (names.length === 3) return `${first}, ${second} and ${third} are here`;
  return `${first}, ${second} and ${names.length - 2} more are here`;
}
