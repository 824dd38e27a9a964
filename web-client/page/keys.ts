import { byId } from "./dom.js";
import { recall, remember } from "./storage.js";

/** Whether m and v do anything. Who speaks to the computer, or hits keys by accident, switches them off. */
function singleKeys(): boolean {
  return recall("keys") !== "off";
}

/** Makes the switch in the settings work. */
export function wireKeySwitch(): void {
  const box = byId("single-keys", HTMLInputElement);
  const show = (): void => {
    for (const [id, key] of [["mute", "m"], ["camera", "v"]] as const) {
      if (box.checked) byId(id).setAttribute("aria-keyshortcuts", key);
      else byId(id).removeAttribute("aria-keyshortcuts");
    }
  };
  box.checked = singleKeys();
  box.addEventListener("change", () => {
    remember("keys", box.checked ? "on" : "off");
    show();
  });
  show();
}

/** What the keys of the call do. */
export interface KeyActions {
  mute(): void;
  camera(): void;
  /** Space goes down (`true`) or up. @returns whether it means anything now. */
  talk(on: boolean): boolean;
  /** @returns whether anything was closed. */
  escape(): boolean;
}

/** Whether a key belongs to the element that has the focus. */
function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, select, textarea, [contenteditable], dialog") !== null;
}

function pressable(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("button, a, summary") !== null;
}

/** Listens to the keyboard while a call goes on. @returns a function that stops it. */
export function listenToKeys(actions: KeyActions): () => void {
  let held = false;
  const release = (): void => {
    if (!held) return;
    held = false;
    actions.talk(false);
  };
  const down = (event: KeyboardEvent): void => {
    if (event.key === "Escape") {
      if (actions.escape()) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.code === "Space") {
      // On a focused button space presses the button, as everywhere.
      if (pressable(event.target)) return;
      event.preventDefault();
      if (!event.repeat && !held) held = actions.talk(true);
      return;
    }
    if (event.repeat || !singleKeys()) return;
    const key = event.key.toLowerCase();
    if (key === "m") actions.mute();
    else if (key === "v") actions.camera();
  };
  const up = (event: KeyboardEvent): void => {
    if (event.code !== "Space" || !held) return;
    event.preventDefault();
    release();
  };
  // A click with the mouse must not take the space bar away from talking.
  const click = (event: MouseEvent): void => {
    if (event.detail === 0) return;
    const button = event.target instanceof Element ? event.target.closest<HTMLElement>("#call .bar button, #call .tile button") : null;
    // The button of the menu has the focus after one that was in the menu.
    const focused = document.activeElement;
    if (button && focused instanceof HTMLElement && (focused === button || focused.id === "more")) focused.blur();
  };
  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  document.addEventListener("click", click);
  window.addEventListener("blur", release);
  return () => {
    release();
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
    document.removeEventListener("click", click);
    window.removeEventListener("blur", release);
  };
}
