import { announce, byId } from "./dom.js";

/** So long the gateway keeps one's place; after that the others see that one has left. */
const KEPT_MS = 10_000;

/** Says that the connection is lost, and what becomes of it. */
export class Banner {
  private readonly element = byId("banner");
  private timer: ReturnType<typeof setTimeout> | undefined;

  get shown(): boolean {
    return !this.element.hidden;
  }

  show(): void {
    if (this.shown) return;
    this.element.hidden = false;
    this.say("Connection lost.", "Coming back by itself as soon as the network does. The others see that you are away.");
    this.timer = setTimeout(
      () => this.say("Still no connection.", "This page goes on trying and brings you back into the room. Look after your network, or leave."),
      KEPT_MS,
    );
  }

  hide(): void {
    clearTimeout(this.timer);
    this.element.hidden = true;
  }

  private say(title: string, words: string): void {
    byId("banner-title").textContent = title;
    byId("banner-words").textContent = words;
    announce(`${title} ${words}`);
  }
}
