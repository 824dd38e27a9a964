import type { Participant, Room } from "@wzp/client";
import { byId, face, icon, make } from "./dom.js";
import { qualityWords, type Quality } from "./quality.js";
import { silent } from "./tile.js";
import { doorWords } from "./words.js";

/** What each row of the list was made of. */
const made = new WeakMap<Element, string>();

/** Fills the list of people: name, door, quality, marks. Rows that say the same as before stay: a reader may be in the middle of one. */
export function showPeople(room: Room, quality: ReadonlyMap<number, Quality>): void {
  const list = byId("people-list");
  const everybody = [...room.participants.values()].sort((a, b) => Number(b.isLocal) - Number(a.isLocal));
  everybody.forEach((participant, index) => {
    const rated = quality.get(participant.id) ?? "unknown";
    const { id, alias, door, state, muted, tracks } = participant;
    const content = JSON.stringify([id, alias, door, state, muted.video, silent(participant), tracks.some(({ source }) => source === "screen"), rated]);
    const before = list.children[index];
    if (before && made.get(before) === content) return;
    const fresh = row(participant, rated);
    made.set(fresh, content);
    if (before) before.replaceWith(fresh);
    else list.append(fresh);
  });
  while (list.children.length > everybody.length) list.lastElementChild?.remove();
}

function row(participant: Participant, quality: Quality): HTMLLIElement {
  const { alias, isLocal, door, state, muted, tracks, fingerprint } = participant;
  const item = make("li", "person");
  const words = make("div");
  words.append(make("p", "name", isLocal ? `${alias} (you)` : alias));
  words.append(make("p", "how", state === "reconnecting" ? "Reconnecting…" : doorWords(door)));
  const marks = make("div", "marks");
  if (tracks.some(({ source }) => source === "screen")) marks.append(mark("screen", "shares the screen"));
  if (silent(participant)) marks.append(mark("mic-off", "muted"));
  if (muted.video) marks.append(mark("camera-off", "camera off"));
  if (!isLocal) marks.append(bars(quality));
  item.append(face(alias, fingerprint || String(participant.id)), words, marks);
  return item;
}

function mark(symbol: string, words: string): HTMLSpanElement {
  const span = make("span");
  span.append(icon(symbol, "small"), make("span", "visually-hidden", words));
  span.title = words;
  return span;
}

function bars(quality: Quality): HTMLSpanElement {
  const words = qualityWords(quality) || "quality not known yet";
  const span = make("span");
  span.title = words;
  const picture = make("span", "bars");
  picture.dataset.quality = quality;
  picture.setAttribute("aria-hidden", "true");
  picture.append(make("i"), make("i"), make("i"));
  span.append(picture, make("span", "visually-hidden", words));
  return span;
}
