import { announce, icon, svg } from "./dom.js";
import { roomLink } from "./parameters.js";

let shown = "";

/** Fills every place of the page that shows the link to the room, its QR code and the button that copies it. */
export async function showLink(room: string): Promise<void> {
  const link = roomLink(room);
  if (link === shown) return;
  for (const place of document.querySelectorAll<HTMLElement>("[data-link]")) place.textContent = link.replace(/^https?:\/\//u, "");
  for (const place of document.querySelectorAll<HTMLElement>("[data-qr]")) place.replaceChildren();
  try {
    await drawCode(link);
    shown = link;
  } catch {
    // The link itself is there to be copied; the code is tried again when it is next to be seen.
    shown = "";
  }
}

async function drawCode(link: string): Promise<void> {
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

/**
 * Copies a text, which may still be on its way: some browsers let a page copy only in the very moment of the click, and take a promise then.
 */
async function copy(text: Promise<string>): Promise<void> {
  if ("ClipboardItem" in window && "write" in navigator.clipboard) {
    try {
      const blob = text.then((words) => new Blob([words], { type: "text/plain" }));
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
      return;
    } catch {
      // Not every browser that has the interface takes promises.
    }
  }
  await navigator.clipboard.writeText(await text);
}

/** Copies a text and says so on the button for a moment. */
export async function copyWithEcho(button: HTMLButtonElement, text: string | Promise<string>, done: string, sorry: (text: string) => void): Promise<void> {
  const words = button.querySelector("span");
  const before = words?.textContent ?? "";
  if (button.dataset.copied !== undefined) return;
  try {
    await copy(Promise.resolve(text));
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
