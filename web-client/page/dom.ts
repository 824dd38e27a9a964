import sprite from "../../static/icons.svg";

/** The element of index.html with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string, type?: new () => T): T {
  const found = document.getElementById(id);
  if (!found || (type && !(found instanceof type))) throw new Error(`index.html has no ${type?.name ?? "element"} with the id "${id}"`);
  return found as T;
}

/** A new element with classes and text. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, classes = "", text = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text) element.textContent = text;
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A new SVG element with attributes. */
export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Record<string, string | number>): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** An icon of the sprite, unseen by screen readers. */
export function icon(name: string, classes = ""): SVGSVGElement {
  const picture = svg("svg", { class: `icon ${classes}`.trim(), "aria-hidden": "true" });
  picture.append(svg("use", { href: `${sprite}#${name}` }));
  return picture;
}

/** The address of an icon, for a `<use>` that is already there. */
export function iconAddress(name: string): string {
  return `${sprite}#${name}`;
}

/** Sets or removes a boolean `data-` attribute. */
export function flag(element: HTMLElement, name: string, on: boolean): void {
  if (element.hasAttribute(`data-${name}`) !== on) element.toggleAttribute(`data-${name}`, on);
}

/** So long a sentence stays in the region, ms: what reads it may be busy with another. */
const ANNOUNCED_MS = 10_000;

/** Says something to screen readers, politely. Sentences that come at once are lines of their own, so that each is read. */
export function announce(text: string): void {
  const line = make("p", "", text);
  byId("announcer").append(line);
  setTimeout(() => line.remove(), ANNOUNCED_MS);
}

/** Hides something; if the focus was in it, the call itself has it next, not the top of the page. */
export function hide(element: HTMLElement): void {
  const hadFocus = element.contains(document.activeElement);
  element.hidden = true;
  if (hadFocus) byId("call").focus({ preventScroll: true });
}

/** The letters that stand for a name: the first ones of its first and last word. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter(Boolean);
  const ends = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return ends.map((word) => firstLetter(word ?? "")).join("").toLocaleUpperCase() || "?";
}

/** A letter as people see it: an emoji of several code points is one. */
function firstLetter(word: string): string {
  const [first] = new Intl.Segmenter().segment(word);
  return first?.segment ?? "";
}

/** One of the eight avatar colours, the same for the same identity every time. */
export function tone(identity: string): string {
  let hash = 0;
  for (const letter of identity) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) >>> 0;
  return `tone-${hash % 8}`;
}

/** A round picture of initials. */
export function face(name: string, identity: string): HTMLSpanElement {
  const round = make("span", `face ${tone(identity)}`, initials(name));
  round.setAttribute("aria-hidden", "true");
  return round;
}
