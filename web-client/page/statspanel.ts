import type { RoomStats, SendStats, SourceStats } from "@wzp/client";
import { Chart } from "./charts.js";
import { byId, icon, make } from "./dom.js";

/** `1.2 Mbit/s`, `48 kbit/s`. */
export function rateWords(bits: number): string {
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
}

/** `0.4 s`, `12 ms`. */
export function timeWords(ms: number): string {
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`;
}

class Facts {
  readonly element = make("dl", "stats-facts");
  private readonly values = new Map<string, HTMLElement>();

  set(what: string, value: string): void {
    let place = this.values.get(what);
    if (!place) {
      const line = make("dt", "", what);
      place = make("dd");
      this.element.append(line, place);
      this.values.set(what, place);
    }
    if (place.textContent !== value) place.textContent = value;
  }
}

abstract class Group<T> {
  readonly element = make("section", "stats-group");
  protected readonly codec = make("span", "codec");
  protected readonly facts = new Facts();

  protected constructor(
    title: string,
    symbol: string,
    private readonly charts: readonly Chart[],
  ) {
    const heading = make("h3");
    heading.append(icon(symbol), make("span", "", title), this.codec);
    const row = make("div", "charts");
    row.append(...charts.map(({ element }) => element));
    this.element.append(heading, row, this.facts.element);
  }

  draw(): void {
    for (const chart of this.charts) chart.draw();
  }

  /** For how many readings it has been missing. */
  missed = 0;

  abstract add(now: T, seconds: number): void;
}

/** What happened to a received track between two readings, by the second. */
export interface SourceSecond {
  /** Share of what was sent that did not arrive, %. */
  loss: number;
  /** Time for which pictures stood still or sound was concealed, ms. */
  frozen: number;
  /** Pictures shown, and such as came but were left out. */
  decoded: number;
  dropped: number;
}

/** Compares two readings `seconds` apart. Counters that were begun anew count for nothing. */
export function sourceSecond(now: SourceStats, before: SourceStats, seconds: number): SourceSecond {
  const rise = (what: "packets" | "lost" | "freezeMs" | "framesDecoded" | "framesDropped"): number => Math.max(0, now[what] - before[what]);
  const sent = rise("packets") + rise("lost");
  // A reading that comes late tells of more than a second.
  const span = Math.max(0.2, seconds);
  return {
    loss: sent > 0 ? (100 * rise("lost")) / sent : 0,
    frozen: rise("freezeMs") / span,
    decoded: rise("framesDecoded") / span,
    dropped: rise("framesDropped") / span,
  };
}

class SourceGroup extends Group<SourceStats> {
  private readonly rate: Chart;
  private readonly shown: Chart;
  private readonly delay: Chart;
  private readonly loss: Chart;
  private readonly frozen: Chart;
  private readonly dropped: Chart;
  private before: SourceStats | undefined;

  constructor(source: SourceStats) {
    const video = source.kind === "video";
    const symbol = source.kind === "audio" ? "mic" : source.slot === 0 ? "camera" : "screen";
    const rate = new Chart("Rate", "rate", 16_000);
    const shown = new Chart("Pictures a second", "rate", 10);
    const delay = new Chart("Delay", "delay", 100);
    const loss = new Chart("Loss", "bad", 5);
    const frozen = new Chart(video ? "Frozen" : "Concealed", "bad", 200);
    const dropped = new Chart("Dropped a second", "bad", 5);
    super(source.alias, symbol, video ? [rate, shown, delay, loss, frozen, dropped] : [rate, delay, loss, frozen]);
    this.rate = rate;
    this.shown = shown;
    this.delay = delay;
    this.loss = loss;
    this.frozen = frozen;
    this.dropped = dropped;
  }

  add(now: SourceStats, seconds: number): void {
    const { loss, frozen, decoded, dropped } = sourceSecond(now, this.before ?? now, seconds);
    this.before = now;
    this.codec.textContent = now.codec.toUpperCase() + (now.width ? `, ${now.width}×${now.height}` : "");
    this.rate.add(now.bitrate, rateWords(now.bitrate));
    this.delay.add(now.delayMs, timeWords(now.delayMs));
    this.loss.add(loss, `${loss.toFixed(1)} %`);
    this.frozen.add(frozen, timeWords(now.freezeMs));
    this.shown.add(decoded, String(Math.round(decoded)));
    this.dropped.add(dropped, String(Math.round(dropped)));
    const video = now.kind === "video";
    this.facts.set(video ? "First picture after" : "First sound after", now.firstFrameMs ? timeWords(now.firstFrameMs) : "waiting");
    this.facts.set("Packets, lost", `${now.packets}, ${now.lost}`);
    this.facts.set("Decoded, dropped", `${now.framesDecoded}, ${now.framesDropped}`);
    this.facts.set(video ? "Freezes" : "Gaps", String(now.freezeCount));
  }
}

class SendGroup extends Group<SendStats> {
  private readonly rate: Chart;
  private readonly fps: Chart;

  constructor(sent: SendStats) {
    const rate = new Chart("Rate", "rate", 16_000);
    const fps = new Chart(sent.kind === "video" ? "Pictures a second" : "Packets a second", "rate", 10);
    super(`Your ${sent.source}`, sent.source === "microphone" ? "mic" : sent.source, [rate, fps]);
    this.rate = rate;
    this.fps = fps;
  }

  add(now: SendStats): void {
    this.codec.textContent = now.codec.toUpperCase() + (now.width ? `, ${now.width}×${now.height}` : "");
    this.rate.add(now.bitrate, rateWords(now.bitrate));
    this.fps.add(now.fps, String(Math.round(now.fps)));
    this.facts.set("Left out", String(now.skipped));
    if (now.kind === "video") this.facts.set("Keyframes", String(now.keyframes));
    this.facts.set("Held back by", now.limitReason ?? "nothing");
  }
}

/** An answer without a track may only have come late: its last minute is kept for so many readings. */
const GONE_AFTER = 3;

/** The figures of the call. Taken once a second from its beginning, so that the charts show the last minute whenever they are opened. */
export class StatsPanel {
  private readonly body = byId("stats-body");
  private readonly facts = new Facts();
  private readonly sources = new Map<string, SourceGroup>();
  private readonly sending = new Map<string, SendGroup>();
  private last = 0;
  private seen = false;

  constructor() {
    this.body.replaceChildren(this.facts.element);
  }

  /** Whether anybody looks at the charts. */
  setOpen(open: boolean): void {
    this.seen = open;
    this.draw();
  }

  add(stats: RoomStats): void {
    const now = performance.now();
    const seconds = this.last ? (now - this.last) / 1000 : 1;
    this.last = now;
    const first = stats.sources.filter(({ kind, firstFrameMs }) => kind === "video" && firstFrameMs > 0).map(({ firstFrameMs }) => firstFrameMs);
    this.facts.set("Way", stats.transport === "webrtc" ? "WebRTC" : "WebSocket");
    if (stats.transportReason) this.facts.set("Because", stats.transportReason);
    this.facts.set("Joined in", timeWords(stats.joinMs));
    this.facts.set("First picture after", first.length ? timeWords(Math.min(...first)) : "no picture yet");
    this.facts.set("Round trip", timeWords(stats.rttMs));
    this.follow(this.sources, stats.sources, (source) => `${source.id}:${source.kind}:${source.slot}`, (source) => new SourceGroup(source), seconds);
    this.follow(this.sending, stats.sending, (sent) => `${sent.kind}:${sent.slot}`, (sent) => new SendGroup(sent), seconds);
    this.draw();
  }

  private draw(): void {
    if (!this.seen) return;
    for (const group of [...this.sources.values(), ...this.sending.values()]) group.draw();
  }

  private follow<T, G extends Group<T>>(groups: Map<string, G>, entries: T[], key: (entry: T) => string, build: (entry: T) => G, seconds: number): void {
    const present = new Set(entries.map(key));
    for (const [name, group] of groups) {
      group.missed = present.has(name) ? 0 : group.missed + 1;
      if (group.missed < GONE_AFTER) continue;
      group.element.remove();
      groups.delete(name);
    }
    for (const entry of entries) {
      let group = groups.get(key(entry));
      if (!group) {
        group = build(entry);
        groups.set(key(entry), group);
        this.body.append(group.element);
      }
      group.add(entry, seconds);
    }
  }
}
