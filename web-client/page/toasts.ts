import { announce, byId, make } from "./dom.js";

const MOST = 3;

/** Shows a short message over the tiles for a while, or until the returned function is called, and has it read. */
export function toast(text: string, options: { seconds?: number; action?: { label: string; run: () => void } } = {}): () => void {
  const list = byId("toasts");
  const item = make("div", "toast");
  item.append(make("span", "", text));
  const close = (): void => item.remove();
  const { action } = options;
  if (action) {
    const button = make("button", "", action.label);
    button.type = "button";
    button.addEventListener("click", () => {
      close();
      action.run();
    });
    item.append(button);
  }
  list.append(item);
  while (list.children.length > MOST) list.firstElementChild?.remove();
  announce(text);
  setTimeout(close, (options.seconds ?? 4) * 1000);
  return close;
}

export function clearToasts(): void {
  byId("toasts").replaceChildren();
}
