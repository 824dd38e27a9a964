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
    if (event.repeat) return;
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
    if (button && document.activeElement === button) button.blur();
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
