import { byId, iconAddress } from "./dom.js";
import type { Closing } from "./words.js";

/** The page after a call, or when it could not begin. */
export class Closed {
  private timer: ReturnType<typeof setInterval> | undefined;
  private action: Closing["action"] = "join";
  private code: string | undefined;
  private retryAfter: number | undefined;

  constructor(
    private readonly again: (token: string | undefined) => void,
    toLobby: () => void,
    private readonly retry: () => void,
  ) {
    byId("again").addEventListener("click", () => this.go());
    byId("closed-token").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    byId("to-lobby").addEventListener("click", () => {
      this.hide();
      toLobby();
    });
  }

  show(closing: Closing, code: string | undefined): void {
    const { title, what, page, you, icon, action, retryAfter, askToken } = closing;
    this.hide();
    this.action = action;
    this.code = code;
    this.retryAfter = retryAfter;
    byId("closed-page").removeAttribute("aria-live");
    byId("closed-title").textContent = title;
    for (const [id, text] of [["closed-what", what], ["closed-page", page], ["closed-you", you]] as const) {
      byId(id).textContent = text;
      byId(id).hidden = !text;
    }
    document.getElementById("closed-icon")?.setAttribute("href", iconAddress(icon));
    byId("again").textContent = action === "reload" ? "Reload" : "Join again";
    byId("closed-token").hidden = !askToken;
    const mark = byId("closed-code");
    mark.hidden = code === undefined;
    mark.textContent = code === undefined ? "" : `Code for reports: ${code}`;
    if (retryAfter !== undefined) this.countDown(retryAfter);
    if (askToken) byId("new-token").focus();
    else byId("closed-title").focus();
  }

  hide(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  /** After a try by itself that ended the same way as before: counts anew. @returns whether it did */
  countAgain(code: string): boolean {
    if (code !== this.code || this.retryAfter === undefined) return false;
    this.countDown(this.retryAfter);
    return true;
  }

  private go(): void {
    this.hide();
    if (this.action === "reload") {
      window.location.reload();
      return;
    }
    const field = byId("new-token", HTMLInputElement);
    const token = byId("closed-token").hidden ? undefined : field.value.trim() || undefined;
    field.value = "";
    this.again(token);
  }

  private countDown(seconds: number): void {
    const line = byId("closed-page");
    line.hidden = false;
    // Read once, not every second.
    line.setAttribute("aria-live", "off");
    let left = seconds;
    const say = (): void => {
      line.textContent = `This page tries again in ${left} s.`;
    };
    say();
    this.timer = setInterval(() => {
      left -= 1;
      if (left > 0) {
        say();
        return;
      }
      this.hide();
      line.textContent = "Trying again …";
      this.retry();
    }, 1000);
  }
}
