import type { LeaveReason, Participant, Publication, Room, RoomStats } from "@wzp/client";
import { announce, byId, flag, hide } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { meterScale, showLevel } from "./level.js";
import type { LocalMedia } from "./media.js";
import type { Panels } from "./panels.js";
import { showPeople } from "./people.js";
import { Publishing } from "./publishing.js";
import { qualityOf, type Quality } from "./quality.js";
import { copyWithEcho, showLink } from "./share.js";
import { Stage } from "./stage.js";
import { StatsPanel } from "./statspanel.js";
import { recall, remember } from "./storage.js";
import { clearToasts, toast } from "./toasts.js";
import { troubleWords, troublesWords, uplinkWords } from "./words.js";

const SECOND = 1000;
/** Without anybody else for so long, the page offers the link. Rejoining people are quicker. */
const ALONE_AFTER_MS = 300;

/** One call, from the moment that the room has let us in until it is over. */
export class Call {
  private readonly stage: Stage;
  private readonly publishing: Publishing;
  private readonly stats = new StatsPanel();
  private readonly quality = new Map<number, Quality>();
  private readonly undo: (() => void)[] = [];
  private readonly started = performance.now();
  private readonly toldFailures = new Set<Publication>();
  private lastStats: RoomStats | undefined;
  private settingsOpen = false;
  private aloneTimer: ReturnType<typeof setTimeout> | undefined;
  private sampling = false;
  private syncing = false;
  private done = false;
  private wakeLock: WakeLockSentinel | undefined;

  constructor(
    readonly room: Room,
    private readonly media: LocalMedia,
    private readonly panels: Panels,
    private readonly onTitle: (people: number) => void,
  ) {
    byId("call-room").textContent = room.roomName;
    this.stage = new Stage(room, () => panels.toggle("people", byId("show-people")), (name) => {
      if (name !== undefined) announce(`${name} is shown large`);
    });
    this.publishing = new Publishing(room, media, () => this.update(), (what) => toast(`Sending did not work: ${what}`, { seconds: 8 }));
    this.wireRoom();
    this.wireControls();
    this.undo.push(
      media.onChange(() => this.update()),
      media.onLoss((device, label, replacement) => {
        const what = label || (device === "camera" ? "Your camera" : "Your microphone");
        toast(replacement ? `${what} was unplugged. Now using ${replacement}.` : troubleWords(device, "lost"), { seconds: 8 });
      }),
      listenToKeys({
        mute: () => void this.toggleMute(),
        camera: () => void this.toggleCamera(),
        talk: (on) => this.talk(on),
        escape: () => panels.escape() || this.stage.unpin(),
      }),
    );
    const second = setInterval(() => void this.everySecond(), SECOND);
    const quick = setInterval(() => {
      if (this.settingsOpen) showLevel(byId("call-level"), meterScale(room.local.audioLevel));
    }, 60);
    this.undo.push(() => clearInterval(second), () => clearInterval(quick));
    const speaker = recall("audiooutput");
    if (speaker) this.setSpeaker(speaker, true);
    this.setVolume(byId("volume", HTMLInputElement).valueAsNumber / 100);
    const troubles = troublesWords({ microphone: media.trouble.microphone, camera: media.on.camera ? media.trouble.camera : undefined });
    if (troubles) toast(troubles, { seconds: 8 });
    void this.stayAwake();
    this.sync();
    this.update();
    this.showBlocked();
    this.showUplink();
    announce(`You are in the room ${room.roomName}. ${peopleCount(room.participants.size)}.`);
  }

  panelOpened(): void {
    if (this.panels.current === "people") void showLink(this.room.roomName);
    this.stats.setOpen(this.panels.current === "stats");
    this.updatePeople();
  }

  setSettingsOpen(open: boolean): void {
    this.settingsOpen = open;
  }

  setSpeaker(deviceId: string, quiet = false): void {
    this.room.audio.setSink(deviceId).catch(() => {
      if (!quiet) toast("The sound could not be moved to that speaker.", { seconds: 6 });
    });
  }

  setVolume(volume: number): void {
    this.room.audio.setVolume(volume);
  }

  dispose(): void {
    this.done = true;
    clearTimeout(this.aloneTimer);
    for (const undo of this.undo.splice(0)) undo();
    this.publishing.dispose();
    this.stage.dispose();
    this.panels.closeAll();
    clearToasts();
    for (const id of ["alone", "tap-to-hear", "talking"]) byId(id).hidden = true;
    void this.wakeLock?.release().catch(() => undefined);
    if (document.fullscreenElement) void document.exitFullscreen().catch(() => undefined);
  }

  private wireRoom(): void {
    const { room } = this;
    this.undo.push(
      room.on("participantjoined", (participant) => {
        this.syncSoon();
        toast(`${participant.alias} joined`);
      }),
      room.on("participantleft", (participant, reason) => {
        this.quality.delete(participant.id);
        this.syncSoon();
        if (!participant.isLocal) toast(leaveWords(participant, reason));
      }),
      room.on("participantchanged", () => this.syncSoon()),
      room.on("trackadded", (track, participant) => {
        this.syncSoon();
        if (track.source === "screen") toast(`${participant.alias} shares a screen`);
      }),
      room.on("trackremoved", () => this.syncSoon()),
      room.on("audioblocked", () => this.showBlocked()),
      room.on("uplink", () => this.showUplink()),
      room.on("notice", ({ message }) => void toast(message, { seconds: 7 })),
      room.on("error", (error) => {
        if (!error.fatal) toast(error.message, { seconds: 7 });
      }),
    );
  }

  private wireControls(): void {
    this.listen("mute", () => void this.toggleMute());
    this.listen("camera", () => void this.toggleCamera());
    this.listen("screen", () => void this.toggleScreen());
    this.listen("tap-to-hear", () => void this.room.audio.resume().then(() => this.showBlocked()));
    const speakerView = (on: boolean): void => {
      this.stage.setSpeakerView(on);
      byId("speaker-view").setAttribute("aria-pressed", String(on));
    };
    speakerView(recall("speakerView") !== "off");
    this.listen("speaker-view", () => {
      speakerView(!this.stage.speakerView);
      remember("speakerView", this.stage.speakerView ? "on" : "off");
    });
    this.listen("copy-stats", () => void this.copyStats());
    const full = byId("full-screen");
    full.hidden = !document.fullscreenEnabled;
    this.listen("full-screen", () => {
      const change = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
      change.catch(() => undefined);
    });
    const onFull = (): void => full.setAttribute("aria-pressed", String(document.fullscreenElement !== null));
    document.addEventListener("fullscreenchange", onFull);
    const onVisible = (): void => void this.stayAwake();
    document.addEventListener("visibilitychange", onVisible);
    this.undo.push(() => {
      document.removeEventListener("fullscreenchange", onFull);
      document.removeEventListener("visibilitychange", onVisible);
    });
    const devices = navigator.mediaDevices as MediaDevices | undefined;
    byId("screen").hidden = devices === undefined || !("getDisplayMedia" in devices);
  }

  private isOver(): boolean {
    return this.done;
  }

  private listen(id: string, action: () => void): void {
    const button = byId(id);
    button.addEventListener("click", action);
    this.undo.push(() => button.removeEventListener("click", action));
  }

  private async toggleMute(): Promise<void> {
    const on = !(this.media.on.microphone && this.media.track("microphone"));
    this.publishing.setTalking(false);
    await this.media.set("microphone", on);
    remember("microphone", on ? "on" : "off");
    this.afterSwitch("microphone", on);
  }

  private async toggleCamera(): Promise<void> {
    const on = !(this.media.on.camera && this.media.track("camera"));
    await this.media.set("camera", on);
    remember("camera", on ? "on" : "off");
    this.afterSwitch("camera", on);
  }

  private afterSwitch(device: "microphone" | "camera", on: boolean): void {
    if (this.done) return;
    const trouble = this.media.trouble[device];
    const name = device === "camera" ? "Camera" : "Microphone";
    if (on && trouble && !this.media.track(device)) {
      void this.media.set(device, false);
      toast(troubleWords(device, trouble), { seconds: 8 });
    } else announce(`${name} ${on ? "on" : "off"}`);
  }

  private async toggleScreen(): Promise<void> {
    try {
      if (this.publishing.sharing) await this.publishing.unshare();
      else await this.publishing.share();
    } catch (error) {
      // Closing the browser's question is an answer, not an error.
      if (this.isOver() || (error instanceof DOMException && error.name === "NotAllowedError")) return;
      toast(`Sharing the screen did not work: ${error instanceof Error ? error.message : String(error)}`, { seconds: 8 });
    }
    this.sync();
  }

  private talk(on: boolean): boolean {
    if (on && (this.media.on.microphone || !this.media.track("microphone"))) return false;
    this.publishing.setTalking(on);
    byId("talking").hidden = !on;
    flag(byId("mute"), "talking", on);
    return true;
  }

  /** One message can change many people; the page follows once. */
  private syncSoon(): void {
    if (this.syncing) return;
    this.syncing = true;
    queueMicrotask(() => {
      this.syncing = false;
      if (!this.done) this.sync();
    });
  }

  /** The people have changed. */
  private sync(): void {
    if (this.done) return;
    const { room } = this;
    this.stage.sync();
    const people = room.participants.size;
    byId("people-count").textContent = String(people);
    this.onTitle(people);
    clearTimeout(this.aloneTimer);
    if (people > 1) hide(byId("alone"));
    else
      this.aloneTimer = setTimeout(() => {
        void showLink(room.roomName);
        byId("alone").hidden = false;
      }, ALONE_AFTER_MS);
    this.updatePeople();
    this.showFacts();
    this.update();
  }

  /** The own switches or devices have changed. */
  private update(): void {
    // Tiles made now would stand in the next call.
    if (this.done) return;
    const { media } = this;
    byId("mute").setAttribute("aria-pressed", String(!media.on.microphone || !media.track("microphone")));
    byId("camera").setAttribute("aria-pressed", String(media.on.camera && media.track("camera") !== undefined));
    byId("screen").setAttribute("aria-pressed", String(this.publishing.sharing));
    this.stage.showLocal("camera", media.on.camera ? media.track("camera") : undefined);
    this.stage.sync();
    this.tellFailures();
    const words = troublesWords({ microphone: media.trouble.microphone, camera: media.on.camera ? media.trouble.camera : undefined });
    const problem = byId("settings-problem");
    problem.textContent = words;
    problem.hidden = !words;
  }

  /** A track that this browser cannot encode or read: said once, the call goes on without it. */
  private tellFailures(): void {
    for (const publication of this.room.local.publications) {
      if (publication.state !== "failed") this.toldFailures.delete(publication);
      // A track that has ended is a device that went away: `onLoss` tells that.
      if (publication.state !== "failed" || publication.track.readyState === "ended" || this.toldFailures.has(publication)) continue;
      this.toldFailures.add(publication);
      const text = `The others do not get your ${publication.source}: ${publication.failure ?? "it could not be sent"} The call goes on without it.`;
      toast(text, { seconds: 10 });
    }
  }

  private updatePeople(): void {
    if (this.panels.current === "people") showPeople(this.room, this.quality);
  }

  private showBlocked(): void {
    const button = byId("tap-to-hear");
    if (!this.room.audio.blocked) hide(button);
    else if (button.hidden) {
      button.hidden = false;
      announce("The browser holds the sound back. Press “Tap to hear”.");
    }
  }

  private showUplink(): void {
    const { uplink } = this.room;
    const line = byId("call-uplink");
    line.hidden = !uplink;
    line.textContent = uplink ? uplinkWords(uplink) : "";
    line.title = line.textContent;
    line.dataset.state = uplink?.state ?? "";
  }

  private showFacts(): void {
    const seconds = Math.floor((performance.now() - this.started) / 1000);
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    byId("call-facts").textContent = `${peopleCount(this.room.participants.size)} · ${clock}`;
  }

  private async everySecond(): Promise<void> {
    this.showFacts();
    await this.sample();
  }

  /** Once a second, also while nobody looks: the charts show the last minute when they are opened. */
  private async sample(): Promise<void> {
    if (this.sampling) return;
    this.sampling = true;
    try {
      const stats = await this.room.stats({ sound: false });
      if (this.isOver()) return;
      for (const participant of this.room.participants.values()) this.quality.set(participant.id, qualityOf(participant.id, stats, this.lastStats));
      this.lastStats = stats;
      this.stats.add(stats);
      this.updatePeople();
    } catch {
      // While the connection is being made anew there are no figures.
    } finally {
      this.sampling = false;
    }
  }

  private async copyStats(): Promise<void> {
    const { roomName, state } = this.room;
    // Without figures the rest is still worth a report.
    const report = this.room.stats().catch(() => ({})).then((stats) => JSON.stringify({ taken: new Date().toISOString(), browser: navigator.userAgent, room: roomName, state, ...stats }, undefined, 2));
    await copyWithEcho(byId("copy-stats", HTMLButtonElement), report, "Copied", (text) => void toast(text));
  }

  /** A phone must not fall asleep in a call. */
  private async stayAwake(): Promise<void> {
    if (document.hidden || !("wakeLock" in navigator)) return;
    try {
      const lock = await navigator.wakeLock.request("screen");
      if (this.isOver()) await lock.release();
      else this.wakeLock = lock;
    } catch {
      // Low battery: the system decides.
    }
  }
}

function peopleCount(people: number): string {
  return people === 1 ? "Only you" : `${people} people`;
}

function leaveWords(participant: Participant, reason: LeaveReason): string {
  const { alias } = participant;
  switch (reason) {
    case "left":
      return `${alias} left`;
    case "lost":
      return `${alias} lost the connection`;
    case "replaced":
      return `${alias} went on from another device`;
    case "removed":
      return `${alias} was removed`;
  }
}
