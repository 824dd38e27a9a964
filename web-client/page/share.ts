import { announce, icon, svg } from "./dom.js";
import { roomLink } from "./parameters.js";

let shown = "";

/** Fills every place of the page that shows the link to the room, its QR code and the button that copies it. */
export async function showLink(room: string): Promise<void> {
  const link = roomLink(room);
  if (link === shown) return;
  shown = link;
  for (const place of document.querySelectorAll<HTMLElement>("[data-link]")) place.textContent = link.replace(/^https?:\/\//u, "");
  // Only a call needs the encoder; the first load does without.
  const { encode } = await import("uqr");
  const { data, size } = encode(link, { border: 0, ecc: "M" });
  const path = data
    .flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : "")))
    .join("");
  for (const place of document.querySelectorAll<HTMLElement>("[data-qr]")) {
    const picture = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "QR code of the link to this room" });
    picture.append(svg("path", { d: path, fill: "#000" }));
    place.replaceChildren(picture);
  }
}

/** Makes the copy buttons work; `room` says which room is meant now. */
export function wireCopyButtons(room: () => string, sorry: (text: string) => void): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-copy-link]")) {
    button.addEventListener("click", () => void copyWithEcho(button, roomLink(room()), "Link copied", sorry));
  }
}

/** Copies a text and says so on the button for a moment. */
export async function copyWithEcho(button: HTMLButtonElement, text: string, done: string, sorry: (text: string) => void): Promise<void> {
  const words = button.querySelector("span");
  const before = words?.textContent ?? "";
  if (button.dataset.copied !== undefined) return;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    sorry("The browser does not let this page copy. Select the text and copy it by hand.");
    return;
  }
  button.dataset.copied = "";
  announce(done);
  const symbol = button.querySelector("svg");
  const check = icon("check");
  symbol?.replaceWith(check);
  if (words) words.textContent = done;
  setTimeout(() => {
    if (symbol) check.replaceWith(symbol);
    if (words) words.textContent = before;
    delete button.dataset.copied;
  }, 1800);
}
