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

/** Says something to screen readers, politely. */
export function announce(text: string): void {
  const region = byId("announcer");
  // The same sentence twice has to be a change, or it is not read again.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
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
