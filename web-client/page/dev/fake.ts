import {
  Room,
  RoomError,
  type Door,
  type LocalParticipant,
  type Participant,
  type PausedReason,
  type Publication,
  type PublishOptions,
  type RemoteTrack,
  type RemoteTrackEvents,
  type RoomAudio,
  type RoomEvents,
  type RoomState,
  type RoomStats,
  type SourceStats,
  Emitter,
} from "@wzp/client";
import type { Connect } from "../app.js";

const NAMES = ["Ana Lima", "Ben", "Chidi Okafor", "Dora", "Émile Zola", "Farah", "Goran", "Hana Sato", "Ivo", "Jun", "Kaia", "Leo", "Mira", "Nils", "Olga", "Pia", "Quinn", "Rui", "Sana", "Tom", "Uma", "Vera", "Wim", "Xu", "Yara"];
const DOORS: Door[] = ["native", "webrtc", "websocket", "whip", "rtmp", "uplink"];
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

class FakeTrack extends Emitter<RemoteTrackEvents> implements RemoteTrack {
  readonly kind = "video";
  readonly codec = "h264";
  readonly slot: number;
  readonly element = document.createElement("canvas");
  pausedReason: PausedReason | undefined;
  private timer: ReturnType<typeof setInterval>;
  visible = true;
  constructor(
    readonly participantId: number,
    readonly source: "camera" | "screen",
    readonly width: number,
    readonly height: number,
  ) {
    super();
    this.slot = source === "screen" ? 1 : 0;
    this.element.width = width;
    this.element.height = height;
    let frame = 0;
    const draw = (): void => {
      frame += 1;
      (source === "screen" ? drawScreen : drawPerson)(this.element, participantId, frame);
    };
    draw();
    this.timer = setInterval(draw, 200);
    queueMicrotask(() => this.emit("firstframe"));
  }
  setVisible(visible: boolean): void {
    this.visible = visible;
  }
  readonly subscribed = true;
  setShownSize(): void {}
  subscribe(): void {}
  unsubscribe(): void {}
  pause(reason: PausedReason | undefined): void {
    this.pausedReason = reason;
    this.emit("paused", reason);
  }
  stop(): void {
    clearInterval(this.timer);
  }
}

function drawPerson(canvas: HTMLCanvasElement, id: number, frame: number): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { width, height } = canvas;
  const hue = (id * 67) % 360;
  const wall = context.createLinearGradient(0, 0, width, height);
  wall.addColorStop(0, `hsl(${hue} 22% 74%)`);
  wall.addColorStop(1, `hsl(${hue + 30} 26% 52%)`);
  context.fillStyle = wall;
  context.fillRect(0, 0, width, height);
  context.fillStyle = `hsl(${hue + 30} 20% 84%)`;
  context.fillRect(width * 0.06, height * 0.1, width * 0.2, height * 0.45);
  const x = width / 2 + Math.sin(frame / 4 + id) * width * 0.01;
  context.fillStyle = `hsl(${(hue + 180) % 360} 32% 38%)`;
  context.beginPath();
  context.ellipse(x, height * 1.06, height * 0.46, height * 0.42, 0, 0, 7);
  context.fill();
  context.fillStyle = `hsl(${18 + (id % 4) * 5} 40% ${44 + (id % 5) * 7}%)`;
  context.beginPath();
  context.ellipse(x, height * 0.44, height * 0.17, height * 0.22, 0, 0, 7);
  context.fill();
  context.fillStyle = `hsl(${(id * 31) % 60} 24% ${14 + (id % 3) * 9}%)`;
  context.beginPath();
  context.ellipse(x, height * 0.32, height * 0.19, height * 0.14, 0, Math.PI, 2 * Math.PI);
  context.fill();
}

function drawScreen(canvas: HTMLCanvasElement, _id: number, frame: number): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#223";
  context.font = "bold 44px sans-serif";
  context.fillText("Quarterly plan", 70, 110);
  context.fillStyle = "#7a8a90";
  for (let line = 0; line < 11; line += 1) context.fillRect(70, 170 + line * 42, 500 + ((line * 173 + frame) % 380), 14);
}

class FakePublication implements Publication {
  readonly codec = "h264";
  readonly slot = 0;
  muted = false;
  state: "sending" | "muted" = "sending";
  constructor(
    public track: MediaStreamTrack,
    readonly source: "microphone" | "camera" | "screen",
    private readonly changed: () => void,
    private readonly ended: (publication: FakePublication) => void,
  ) {}
  get kind(): "audio" | "video" {
    return this.track.kind === "audio" ? "audio" : "video";
  }
  mute(on: boolean): Promise<void> {
    this.muted = on;
    this.state = on ? "muted" : "sending";
    this.changed();
    return Promise.resolve();
  }
  replaceTrack(track: MediaStreamTrack): Promise<void> {
    this.track = track;
    return Promise.resolve();
  }
  stop(): Promise<void> {
    this.ended(this);
    return Promise.resolve();
  }
}

/** A room without a gateway; `window.room` in the console. */
export class FakeRoom extends Room {
  state: RoomState = "connected";
  closeReason: RoomError | undefined;
  uplink: undefined;
  readonly participants = new Map<number, Participant>();
  readonly local: LocalParticipant;
  readonly url = "wss://example.invalid";
  readonly audio: RoomAudio & { blocked: boolean; volume: number; sink: string };
  /** The one who talks; `undefined`: they take turns, `0`: nobody. */
  talker: number | undefined;
  private readonly publications: FakePublication[] = [];
  private readonly pictures: FakeTrack[] = [];
  private readonly started = performance.now();
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(
    readonly roomName: string,
    name: string,
  ) {
    super();
    const { publications } = this;
    const audio = {
      blocked: false,
      resume: () => {
        audio.blocked = false;
        this.emit("audioblocked", false);
        return Promise.resolve();
      },
      sink: "",
      setSink: (deviceId: string) => {
        audio.sink = deviceId;
        return Promise.resolve();
      },
      volume: 1,
      setVolume: (volume: number) => {
        audio.volume = volume;
      },
    };
    this.audio = audio;
    this.local = { ...this.person(1, name), isLocal: true, publications, tracks: [] };
    this.participants.set(1, this.local);
    this.timer = setInterval(() => this.talk(), 200);
  }

  fire<K extends keyof RoomEvents>(type: K, ...args: RoomEvents[K]): void {
    this.emit(type, ...args);
  }

  person(id: number, alias: string): Participant {
    return { id, alias, fingerprint: `f${id}`, door: DOORS[(id + 1) % DOORS.length] ?? "webrtc", state: "connected", muted: { audio: id % 5 === 4, video: false }, isLocal: false, tracks: [], audioLevel: 0, speaking: false };
  }

  add(id: number, options: { video?: boolean; screen?: boolean; upright?: boolean } = {}): Participant {
    const participant = this.person(id, NAMES[(id - 2) % NAMES.length] ?? `Guest ${id}`) as Mutable<Participant>;
    const tracks: FakeTrack[] = [];
    const sound = Object.assign(new Emitter<RemoteTrackEvents>(), { kind: "audio", source: "microphone", slot: 0, codec: "opus", participantId: id, element: null, setVisible: () => undefined, setShownSize: () => undefined, subscribed: true, subscribe: () => undefined, unsubscribe: () => undefined } as const);
    if (options.video ?? id % 6 !== 0) tracks.push(options.upright ? new FakeTrack(id, "camera", 360, 640) : new FakeTrack(id, "camera", 640, 360));
    if (options.screen) tracks.push(new FakeTrack(id, "screen", 1280, 720));
    participant.tracks = [sound, ...tracks];
    this.pictures.push(...tracks);
    this.participants.set(id, participant);
    this.emit("participantjoined", participant);
    return participant;
  }

  change(id: number, change: Partial<Participant>): void {
    const participant = this.participants.get(id);
    if (!participant) return;
    Object.assign(participant, change);
    this.emit("participantchanged", participant);
  }

  removePerson(id: number): void {
    const participant = this.participants.get(id);
    if (!participant) return;
    this.participants.delete(id);
    this.emit("participantleft", participant, "left");
  }

  setState(state: RoomState, code?: string): void {
    this.state = state;
    if (code) this.closeReason = new RoomError(code, `The gateway said ${code}.`, true);
    this.emit("state", state);
  }

  override publish(track: MediaStreamTrack, options: PublishOptions = {}): Promise<Publication> {
    const changed = (): void => {
      const own = (source: string): boolean => this.publications.some((each) => each.source === source && !each.muted);
      Object.assign(this.local, { muted: { audio: !own("microphone"), video: !own("camera") } });
      this.emit("participantchanged", this.local);
    };
    const publication = new FakePublication(track, options.source ?? (track.kind === "audio" ? "microphone" : "camera"), changed, (ended) => {
      this.publications.splice(this.publications.indexOf(ended), 1);
      changed();
    });
    this.publications.push(publication);
    changed();
    return Promise.resolve(publication);
  }

  override stats(): Promise<RoomStats> {
    const seconds = (performance.now() - this.started) / 1000;
    const sources: SourceStats[] = [...this.participants.values()]
      .filter(({ isLocal }) => !isLocal)
      .flatMap((participant) => [this.source(participant, "audio", seconds), ...(participant.tracks.length > 1 ? [this.source(participant, "video", seconds)] : [])]);
    const sending = this.publications.map((publication) => ({ kind: publication.kind, source: publication.source, slot: 0, codec: publication.kind === "audio" ? "opus" : "h264", bitrate: publication.kind === "audio" ? 31_000 : 980_000 + 90_000 * Math.sin(seconds), fps: publication.kind === "audio" ? 50 : 30, width: publication.kind === "audio" ? 0 : 1280, height: publication.kind === "audio" ? 0 : 720, skipped: 2, keyframes: 4 }));
    return Promise.resolve({ transport: "websocket", transportReason: "asked for by the address", joinMs: 84, rttMs: 23, sources, sending });
  }

  override disconnect(): Promise<void> {
    clearInterval(this.timer);
    for (const picture of this.pictures) picture.stop();
    if (this.state !== "closed") this.setState("closed");
    return Promise.resolve();
  }

  private source({ id, alias }: Participant, kind: "audio" | "video", seconds: number): SourceStats {
    const bad = id % 4 === 3;
    const wave = Math.sin(seconds * (1 + id / 9));
    return { id, alias, kind, slot: 0, codec: kind === "audio" ? "opus" : "h264", packets: Math.round(seconds * (kind === "audio" ? 50 : 120)), lost: bad ? Math.round(seconds * 5) : 1, bitrate: kind === "audio" ? 30_000 + wave * 3000 : 900_000 + wave * 200_000, framesDecoded: Math.round(seconds * 30), framesDropped: bad ? 14 : 0, decodeErrors: 0, width: kind === "video" ? 640 : 0, height: kind === "video" ? 360 : 0, firstFrameMs: 120 + id * 17, freezeMs: bad ? Math.round(seconds * 60) : 0, freezeCount: bad ? Math.round(seconds / 3) : 0, delayMs: 60 + (bad ? 180 : 0) + wave * 15, audioLevel: 0.05, dominantHz: 220 };
  }

  private talk(): void {
    const people = [...this.participants.values()].filter(({ isLocal, muted }) => !isLocal && !muted.audio);
    const talker = this.talker === undefined ? people[Math.floor(performance.now() / 3000) % Math.max(1, people.length)] : people.find(({ id }) => id === this.talker);
    for (const participant of this.participants.values()) Object.assign(participant, { speaking: participant === talker, audioLevel: participant === talker ? 0.1 + Math.random() * 0.15 : 0 });
    this.emit("speakers", talker ? [talker.id] : []);
  }
}

/** `?people=9&screen=1&upright=1&quiet=1&refuse=room_full&slow=1`; `window.refuse` changes the refusal, `window.asked` keeps what was asked for. */
export function fakeConnect(query: URLSearchParams): Connect {
  const door = Object.assign(window, { refuse: query.get("refuse"), asked: [] as { alias: string; token: string | undefined }[] });
  return async (url, options) => {
    door.asked.push({ alias: options.alias, token: options.token });
    await new Promise((resolve, reject) => {
      setTimeout(resolve, query.has("slow") ? 60_000 : 60);
      options.signal?.addEventListener("abort", () => reject(new RoomError("aborted", "Cancelled.", true)));
    });
    const { refuse } = door;
    if (refuse) throw new RoomError(refuse, `The gateway said ${refuse}.`, true);
    const room = new FakeRoom(decodeURIComponent(new URL(url).pathname.slice(1)), options.alias);
    if (query.has("quiet")) room.talker = 0;
    const people = Number(query.get("people") ?? 1);
    for (let id = 2; id <= people; id += 1) room.add(id, { screen: query.has("screen") && id === 3, upright: query.has("upright") && id === 2 });
    Object.assign(window, { room });
    return room;
  };
}
