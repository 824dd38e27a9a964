import { byId, flag } from "./dom.js";

export type PanelName = "people" | "stats";

const TITLE: Record<PanelName, string> = { people: "People", stats: "Stats" };

/** The panel at the side (a sheet on phones), the settings, and the menu of the phone's bar: one open at a time. */
export class Panels {
  current: PanelName | undefined;
  private readonly panel = byId("panel");
  private readonly dialog = byId("settings", HTMLDialogElement);
  private readonly extras = byId("extras");
  private readonly more = byId("more");
  private opener: HTMLElement | undefined;

  constructor(
    private readonly onOpen: (name: PanelName | undefined) => void,
    private readonly onSettings: (open: boolean) => void,
  ) {
    byId("show-people").addEventListener("click", () => this.toggle("people", byId("show-people")));
    byId("show-stats").addEventListener("click", () => this.toggle("stats", byId("show-stats")));
    byId("panel-close").addEventListener("click", () => this.close());
    byId("show-settings").addEventListener("click", () => {
      this.closeMenu();
      this.dialog.showModal();
      byId("settings-title").focus();
      this.onSettings(true);
    });
    byId("settings-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => {
      // A click on the backdrop arrives at the dialog itself.
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      this.onSettings(false);
      this.focusable(byId("show-settings")).focus();
    });
    this.more.addEventListener("click", () => this.setMenu(!this.extras.hasAttribute("data-open")));
    document.addEventListener("pointerdown", (event) => {
      const target = event.target as Node;
      if (!this.extras.contains(target) && !this.more.contains(target)) this.closeMenu();
    });
    this.extras.addEventListener("click", () => {
      const focused = document.activeElement;
      this.closeMenu();
      // What was pressed is hidden now; the button of the menu is where it was found.
      if (focused instanceof HTMLElement && this.extras.contains(focused)) this.focusable(focused).focus({ preventScroll: true });
    });
  }

  toggle(name: PanelName, opener: HTMLElement): void {
    if (this.current === name) {
      this.close();
      return;
    }
    this.opener = opener;
    this.current = name;
    for (const each of ["people", "stats"] as const) {
      byId(`panel-${each}`).hidden = each !== name;
      byId(`show-${each}`).setAttribute("aria-expanded", String(each === name));
    }
    const title = byId("panel-title");
    title.textContent = TITLE[name];
    this.panel.hidden = false;
    title.focus({ preventScroll: true });
    // Showing the panel and filling it are each work enough for one go.
    setTimeout(() => {
      if (this.current === name) this.onOpen(name);
    });
  }

  /** What Escape does here. @returns whether anything was open. */
  escape(): boolean {
    if (this.dialog.open) {
      this.dialog.close();
      return true;
    }
    if (this.extras.hasAttribute("data-open")) {
      this.closeMenu();
      this.more.focus();
      return true;
    }
    if (!this.current) return false;
    this.close();
    return true;
  }

  close(): void {
    if (!this.current) return;
    byId(`show-${this.current}`).setAttribute("aria-expanded", "false");
    this.current = undefined;
    const hadFocus = this.panel.contains(document.activeElement);
    this.panel.hidden = true;
    if (hadFocus && this.opener) this.focusable(this.opener).focus({ preventScroll: true });
    this.onOpen(undefined);
  }

  closeAll(): void {
    this.close();
    this.closeMenu();
    if (this.dialog.open) this.dialog.close();
  }

  private setMenu(open: boolean): void {
    flag(this.extras, "open", open);
    this.more.setAttribute("aria-expanded", String(open));
    if (open) this.extras.querySelector<HTMLElement>(".extra:not([hidden])")?.focus({ preventScroll: true });
  }

  private closeMenu(): void {
    if (this.extras.hasAttribute("data-open")) this.setMenu(false);
  }

  /** On phones the opener is in the closed menu: the button of the menu stands for it. */
  private focusable(opener: HTMLElement): HTMLElement {
    return opener.offsetParent === null ? this.more : opener;
  }
}
