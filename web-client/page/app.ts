import type { connect as connectRoom, prepare as prepareRoom, Room } from "@wzp/client";
import { RoomError } from "@wzp/client";
import { Banner } from "./banner.js";
import { Call } from "./call.js";
import { Closed } from "./closed.js";
import { byId } from "./dom.js";
import { DeviceLists } from "./devices.js";
import { wireKeySwitch } from "./keys.js";
import { Lobby, type Entry } from "./lobby.js";
import { LocalMedia } from "./media.js";
import { Panels } from "./panels.js";
import { readParameters, type PageParameters } from "./parameters.js";
import { wireCopyButtons } from "./share.js";
import { recall } from "./storage.js";
import { toast } from "./toasts.js";
import { closingWords } from "./words.js";

export type Connect = typeof connectRoom;
export type Prepare = typeof prepareRoom;
export type PageState = "lobby" | "connecting" | "call" | "reconnecting" | "ended" | "refused";

/** The page: which of its screens is shown, and what leads from one to the next. */
export class Page {
  room: Room | undefined;

  private readonly parameters: PageParameters = readParameters(window.location);
  private readonly media: LocalMedia;
  private readonly lobby: Lobby;
  private readonly closed: Closed;
  private readonly panels: Panels;
  private readonly banner = new Banner();
  private entry: Entry = { name: "", room: "", token: undefined };
  private call: Call | undefined;
  private attempt: AbortController | undefined;

  constructor(
    private readonly connect: Connect,
    private readonly prepare: Prepare,
  ) {
    const { parameters } = this;
    this.media = new LocalMedia(parameters.processing, {
      microphone: parameters.microphone && (parameters.autojoin || recall("microphone") !== "off"),
      camera: parameters.camera && (parameters.autojoin || recall("camera") !== "off"),
    });
    this.lobby = new Lobby(
      this.media,
      (entry) => void this.join(entry),
      (room) => this.prepareFor(room),
    );
    this.closed = new Closed(
      (token) => void this.join({ ...this.entry, token: token ?? this.entry.token }),
      () => this.toLobby(),
      () => void this.retry(),
    );
    this.panels = new Panels(
      () => this.call?.panelOpened(),
      (open) => this.call?.setSettingsOpen(open),
    );
    wireKeySwitch();
    new DeviceLists("call", this.media, (deviceId) => this.call?.setSpeaker(deviceId));
    wireCopyButtons(
      () => this.entry.room,
      (text) => void toast(text, { seconds: 8 }),
    );
    byId("volume", HTMLInputElement).addEventListener("input", () => this.call?.setVolume(byId("volume", HTMLInputElement).valueAsNumber / 100));
    byId("cancel").addEventListener("click", () => this.attempt?.abort());
    byId("leave").addEventListener("click", () => void this.room?.disconnect("left"));
    this.entry = { name: parameters.name ?? recall("name"), room: parameters.room, token: parameters.token };
    this.lobby.fill(this.entry);
  }

  start(): void {
    if (this.parameters.autojoin && this.entry.room) void this.join({ ...this.entry, name: this.entry.name.trim() || "Guest" });
    else this.toLobby();
  }

  /** Makes the way to the gateway shorter, now or for `room`. */
  prepareFor(room?: string): void {
    try {
      this.prepare(room === undefined ? undefined : roomUrl(room));
    } catch {
      // Joining says what is wrong with the room, or what this browser lacks.
    }
  }

  private setState(state: PageState): void {
    document.body.dataset.state = state;
  }

  private title(people?: number): void {
    const { room } = this.entry;
    const count = people !== undefined && people > 1 ? ` (${people})` : "";
    const title = room ? `${room}${count} · WZP call` : "WZP call";
    if (document.title !== title) document.title = title;
  }

  private toLobby(): void {
    this.attempt?.abort();
    this.attempt = undefined;
    this.setState("lobby");
    this.lobby.fill(this.entry);
    this.title();
    this.lobby.show();
  }

  private async join(entry: Entry): Promise<void> {
    this.attempt?.abort();
    this.entry = entry;
    const attempt = new AbortController();
    this.attempt = attempt;
    this.setState("connecting");
    this.lobby.hide();
    this.title();
    byId("connecting-title").textContent = `Joining ${entry.room}…`;
    byId("connecting-title").focus({ preventScroll: true });
    this.showAddress(entry.room);
    // Devices and connection start side by side; the call takes up each device when it is there.
    this.openDevices();
    try {
      const room = await this.dial(attempt.signal);
      if (this.attempt === attempt && !attempt.signal.aborted) this.enter(room);
      else await room.disconnect("cancelled");
    } catch (error) {
      if (this.attempt !== attempt) return;
      if (attempt.signal.aborted) this.toLobby();
      else this.close(asRoomError(error), false);
    }
  }

  /** Tries again from the page that says why it did not work, which stays as it is meanwhile: nothing moves under a reader's hands. */
  private async retry(): Promise<void> {
    const attempt = new AbortController();
    this.attempt = attempt;
    try {
      const room = await this.dial(attempt.signal);
      if (this.attempt !== attempt) {
        await room.disconnect("cancelled");
        return;
      }
      // Only now: a light that goes on and off every few seconds frightens people.
      this.openDevices();
      this.closed.hide();
      this.enter(room);
    } catch (error) {
      if (this.attempt !== attempt) return;
      const reason = asRoomError(error);
      if (!this.closed.countAgain(reason.code)) this.close(reason, false);
    }
  }

  private openDevices(): void {
    const wanted = (["microphone", "camera"] as const).filter((device) => (device === "camera" ? this.media.on.camera : this.parameters.microphone));
    void this.media.open(...wanted);
  }

  private dial(signal: AbortSignal): Promise<Room> {
    const { name, room, token } = this.entry;
    return this.connect(roomUrl(room), {
      alias: name,
      transport: this.parameters.transport,
      signal,
      ...(token === undefined ? {} : { token }),
    });
  }

  private enter(room: Room): void {
    this.room = room;
    this.setState("call");
    this.call = new Call(room, this.media, this.panels, (people) => this.title(people));
    // In a task of its own: the focus makes the browser lay out the new screen.
    setTimeout(() => byId("call").focus({ preventScroll: true }), 0);
    room.on("state", () => this.followState(room));
    this.followState(room);
  }

  private followState(room: Room): void {
    if (this.room !== room) return;
    switch (room.state) {
      case "reconnecting":
        this.setState("reconnecting");
        this.banner.show();
        break;
      case "closed":
        this.close(room.closeReason, true);
        break;
      default:
        if (this.banner.shown) {
          this.banner.hide();
          toast("You are back in the call.");
        }
        this.setState("call");
    }
  }

  private close(error: RoomError | undefined, wasIn: boolean): void {
    this.room = undefined;
    this.banner.hide();
    this.call?.dispose();
    this.call = undefined;
    this.media.closeAll();
    if (error?.code === "unauthorized") this.lobby.askToken();
    const closing = closingWords(this.entry.room, error, this.entry.token !== undefined, wasIn, window.isSecureContext);
    this.setState(closing.state);
    this.title();
    this.closed.show(closing, error?.code);
  }

  /** The address becomes the link to the room, so that it can be shared and reloaded. */
  private showAddress(room: string): void {
    if (readParameters({ pathname: window.location.pathname, search: "" }).room === room) return;
    window.history.replaceState(null, "", `/${encodeURIComponent(room)}${window.location.search}`);
  }
}

function roomUrl(room: string): string {
  return `${window.location.origin}/${encodeURIComponent(room.trim())}`;
}

function asRoomError(error: unknown): RoomError {
  if (error instanceof RoomError) return error;
  return new RoomError("connect_failed", error instanceof Error ? error.message : String(error), true);
}
