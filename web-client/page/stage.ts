import type { Participant, RemoteTrack, Room } from "@wzp/client";
import { byId, flag, make } from "./dom.js";
import { gridRects, pairRects, speakerRects, spotlightRects } from "./layout.js";
import { Tile, type Picture } from "./tile.js";

const TICK_MS = 120;
/** A new talker takes the large place only when the last one has been silent for so long. */
const HOLD_MS = 1500;
/** … and has talked for so long: a cough moves nobody. */
const SUSTAIN_MS = 500;
/** From so many people on whoever talks is larger than the others. Of two, the other one is it anyway. */
const SPEAKER_FROM = 3;

/** All the tiles, and where each one stands. */
export class Stage {
  /** Whoever talks is shown larger. */
  speakerView = true;

  private readonly container = byId("tiles");
  private readonly rest = make("button", "rest");
  private readonly tiles = new Map<string, Tile>();
  private readonly sizes: ResizeObserver;
  private readonly views: IntersectionObserver;
  private readonly timer: ReturnType<typeof setInterval>;
  private readonly visibility = (): void => this.applyVisibility();
  private readonly keys = (event: KeyboardEvent): void => this.walk(event);
  private readonly focus = ({ target }: FocusEvent): void => this.setStop(this.seats().find((tile) => tile.holds(target)));
  /** The one tile whose button the Tab key stops at: with 25 people nobody wants to press it 25 times on the way to "Mute". */
  private stop: Tile | undefined;
  private pinned: string | undefined;
  private speaker: number | undefined;
  private frame = 0;
  private disposed = false;
  /** As the browser told it; asking would make it compute the whole page's layout on the spot. */
  private size = { width: 0, height: 0 };

  constructor(
    private readonly room: Room,
    private readonly onRest: () => void,
    private readonly onPin: (name: string | undefined) => void,
  ) {
    this.rest.type = "button";
    this.rest.hidden = true;
    this.rest.addEventListener("click", () => this.onRest());
    this.container.append(this.rest);
    this.container.addEventListener("keydown", this.keys);
    this.container.addEventListener("focusin", this.focus);
    this.sizes = new ResizeObserver(([entry]) => {
      if (entry) this.size = entry.contentRect;
      // While the window is dragged the tiles follow at once; only changes of the company are animated.
      flag(this.container, "resizing", true);
      this.arrange();
      requestAnimationFrame(() => requestAnimationFrame(() => flag(this.container, "resizing", false)));
    });
    this.sizes.observe(this.container);
    this.views = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const tile = [...this.tiles.values()].find((candidate) => candidate.element === entry.target);
        if (!tile) continue;
        tile.inView = entry.isIntersecting;
        tile.applyVisibility();
      }
    });
    document.addEventListener("visibilitychange", this.visibility);
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  /** Adds, changes and removes tiles until they are what the room has. */
  sync(): void {
    if (this.disposed) return;
    const wanted = new Set<string>();
    for (const participant of this.room.participants.values()) {
      this.ensure(participant, "camera", wanted);
      if (sharedScreen(participant) ?? this.ownScreen(participant)) this.ensure(participant, "screen", wanted);
    }
    const seats = this.seats();
    const focused = seats.findIndex((tile) => tile.holds(document.activeElement));
    for (const [key, tile] of this.tiles) {
      if (wanted.has(key)) continue;
      this.views.unobserve(tile.element);
      tile.remove();
      this.tiles.delete(key);
      if (this.pinned === key) this.setPinned(undefined);
    }
    this.keepFocus(seats, focused);
    this.schedule();
  }

  /** Shows the own camera or screen. */
  showLocal(picture: Picture, track: MediaStreamTrack | undefined): void {
    this.tiles.get(`${this.room.local.id}:${picture}`)?.showLocal(track);
  }

  setSpeakerView(on: boolean): void {
    this.speakerView = on;
    this.schedule();
  }

  /** Whether a tile was let go of. */
  unpin(): boolean {
    if (this.pinned === undefined) return false;
    this.setPinned(undefined);
    this.schedule();
    return true;
  }

  dispose(): void {
    this.disposed = true;
    clearInterval(this.timer);
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    this.views.disconnect();
    document.removeEventListener("visibilitychange", this.visibility);
    this.container.removeEventListener("keydown", this.keys);
    this.container.removeEventListener("focusin", this.focus);
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.rest.remove();
  }

  private ensure(participant: Participant, picture: Picture, wanted: Set<string>): void {
    const key = `${participant.id}:${picture}`;
    wanted.add(key);
    let tile = this.tiles.get(key);
    if (!tile) {
      tile = new Tile(participant, picture, (pinned) => this.togglePin(pinned), () => this.schedule());
      this.tiles.set(key, tile);
      // The own tile comes last in the document, so that Tab meets the others first.
      if (participant.isLocal) this.container.append(tile.element);
      else this.container.insertBefore(tile.element, this.container.querySelector(".tile[data-local], .rest"));
      this.views.observe(tile.element);
    }
    if (participant.isLocal) {
      if (picture === "screen") tile.showLocal(this.ownScreen(participant));
    } else {
      tile.showRemote(picture === "screen" ? sharedScreen(participant) : participant.tracks.find((track) => track.kind === "video" && track.source === "camera"));
    }
    tile.update(participant);
  }

  private ownScreen(participant: Participant): MediaStreamTrack | undefined {
    if (!participant.isLocal) return undefined;
    return this.room.local.publications.find(({ source, state }) => source === "screen" && state !== "failed")?.track;
  }

  private togglePin(tile: Tile): void {
    const key = `${tile.participant.id}:${tile.picture}`;
    this.setPinned(this.pinned === key ? undefined : key);
    this.schedule();
  }

  private setPinned(key: string | undefined): void {
    this.pinned = key;
    for (const [candidate, tile] of this.tiles) tile.setPinned(candidate === key);
    this.onPin(key === undefined ? undefined : this.tiles.get(key)?.participant.alias);
  }

  private tick(): void {
    const now = performance.now();
    let loudest: Participant | undefined;
    for (const tile of this.tiles.values()) {
      const participant = this.room.participants.get(tile.participant.id);
      if (!participant) continue;
      tile.tick(participant, now);
      if (tile.picture === "camera" && !participant.isLocal && participant.speaking && participant.audioLevel > (loudest?.audioLevel ?? -1)) loudest = participant;
    }
    if (!loudest || loudest.id === this.speaker) return;
    if (now - (this.tiles.get(`${loudest.id}:camera`)?.talkingSince ?? now) < SUSTAIN_MS) return;
    const current = this.speaker === undefined ? undefined : this.tiles.get(`${this.speaker}:camera`);
    if (current && now - current.spokeAt < HOLD_MS) return;
    this.speaker = loudest.id;
    if (this.speakerView) this.schedule();
  }

  private schedule(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.arrange());
    // A hidden page paints no frames, but its layout has to be right when it comes back.
    if (document.hidden) this.arrange();
  }

  /** The tile that has the large place beside a strip of the others, if one has. */
  private large(): string | undefined {
    if (this.pinned !== undefined && this.tiles.has(this.pinned)) return this.pinned;
    const screens = [...this.tiles].filter(([, tile]) => tile.picture === "screen" && !tile.participant.isLocal);
    const newest = screens[screens.length - 1];
    return newest?.[0];
  }

  /** The tile of who talks, or talked last. Before anybody did, all are equal. */
  private talker(): Tile | undefined {
    if (!this.speakerView || this.speaker === undefined || this.room.participants.size < SPEAKER_FROM) return undefined;
    return this.tiles.get(`${this.speaker}:camera`);
  }

  private arrange(): void {
    // A hidden page is told nothing.
    const { width, height } = document.hidden ? this.container.getBoundingClientRect() : this.size;
    if (width < 1 || height < 1) return;
    const gap = width < 700 ? 6 : 12;
    const all = [...this.tiles].sort(([, a], [, b]) => Number(a.participant.isLocal) - Number(b.participant.isLocal));
    const large = this.large();
    flag(this.container, "single", all.length < 2);
    const held = all.find(([, tile]) => tile.holds(document.activeElement))?.[1];
    for (const [key, tile] of all) {
      flag(tile.element, "large", key === large);
      flag(tile.element, "floating", false);
    }
    this.rest.hidden = true;
    const main = large === undefined ? undefined : this.tiles.get(large);
    const talker = main ? undefined : this.talker();
    if (talker) flag(talker.element, "large", true);
    if (main) this.arrangeSpotlight(main, all.map(([, tile]) => tile).filter((tile) => tile !== main), width, height, gap);
    else if (all.length === 2 && all[1]?.[1].participant.isLocal && all[1][1].picture === "camera" && all[0]) {
      const { main: other, corner, floating } = pairRects(width, height, gap, all[0][1].aspect, all[1][1].aspect);
      this.put(all[0][1], other);
      this.put(all[1][1], corner);
      flag(all[1][1].element, "floating", floating);
    } else if (talker) {
      const { main: place, others } = speakerRects(all.length - 1, width, height, gap);
      this.put(talker, place);
      all.filter(([, tile]) => tile !== talker).forEach(([, tile], index) => this.put(tile, others[index]));
    } else {
      const rects = gridRects(all.length, width, height, gap);
      all.forEach(([, tile], index) => this.put(tile, rects[index]));
    }
    this.applyVisibility();
    this.setStop(this.stop);
    // A tile that has lost its place cannot keep the focus.
    if (held && !held.placed) this.stop?.focus();
  }

  /** The tiles that have a place, as they stand: row by row. */
  private seats(): Tile[] {
    return [...this.tiles.values()].filter((tile) => tile.placed).sort((a, b) => a.top - b.top || a.left - b.left);
  }

  private setStop(tile: Tile | undefined): void {
    const seats = this.seats();
    this.stop = tile && seats.includes(tile) ? tile : seats[0];
    for (const each of this.tiles.values()) each.setStop(each === this.stop);
  }

  /** When the tile that had the focus is gone, the one that stood next to it has it; the last one alone has no button. */
  private keepFocus(seats: Tile[], focused: number): void {
    const before = seats[focused];
    if (!before || before.element.isConnected) return;
    const left = seats.filter((tile) => tile.element.isConnected);
    const next = this.tiles.size > 1 ? left[Math.min(focused, left.length - 1)] : undefined;
    if (next) next.focus();
    else byId("call").focus({ preventScroll: true });
  }

  /** The arrow keys go from tile to tile. */
  private walk(event: KeyboardEvent): void {
    const seats = this.seats();
    const at = seats.findIndex((tile) => tile.holds(event.target));
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -at, End: seats.length - 1 - at }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    seats[(at + step + seats.length) % seats.length]?.focus();
  }

  private arrangeSpotlight(main: Tile, others: Tile[], width: number, height: number, gap: number): void {
    const layout = spotlightRects(others.length, width, height, gap, main.picture === "screen" ? main.aspect : undefined);
    this.put(main, layout.main);
    const seats = layout.left ? layout.strip.length - 1 : layout.strip.length;
    // Too many for the strip: those who talked last stay in sight.
    const order = layout.left ? [...others].sort((a, b) => b.spokeAt - a.spokeAt) : others;
    order.forEach((tile, index) => this.put(tile, index < seats ? layout.strip[index] : undefined));
    const last = layout.strip[seats];
    if (!layout.left || !last) return;
    const { style } = this.rest;
    style.setProperty("--x", `${last.x}px`);
    style.setProperty("--y", `${last.y}px`);
    style.setProperty("--w", `${last.width}px`);
    style.setProperty("--h", `${last.height}px`);
    this.rest.textContent = `${layout.left} more`;
    this.rest.hidden = false;
  }

  private put(tile: Tile, rect: { x: number; y: number; width: number; height: number } | undefined): void {
    tile.placed = rect !== undefined;
    flag(tile.element, "out", !rect);
    if (rect) tile.place(rect);
  }

  private applyVisibility(): void {
    for (const tile of this.tiles.values()) tile.applyVisibility();
  }
}

function sharedScreen(participant: Participant): RemoteTrack | undefined {
  return participant.tracks.find((track) => track.kind === "video" && track.source === "screen");
}
