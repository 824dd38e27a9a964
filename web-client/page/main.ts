// The demo page. `app.ts` leads from screen to screen; `lobby.ts`, `call.ts` and `closed.ts` are the screens, `stage.ts` and
// `tile.ts` the pictures (`layout.ts` computes their places), `media.ts` the person's devices, `publishing.ts` what of them
// is sent. The markup is static/index.html; everything about rooms and media comes from the library.
import { connect, prepare, type Room, type RoomStats } from "@wzp/client";
import { Page } from "./app.js";

/** What a test, or a curious person in the console, may use. */
interface Automation {
  readonly room: Room | undefined;
  stats(): Promise<RoomStats | { transport: null; joinMs: 0; sources: []; sending: [] }>;
}

declare global {
  interface Window {
    wzp: Automation;
  }
}

const page = new Page(connect, prepare);
window.wzp = {
  get room() {
    return page.room;
  },
  async stats() {
    return page.room ? page.room.stats() : { transport: null, joinMs: 0, sources: [], sending: [] };
  },
};
// Reading the program and showing the page are each work enough for one go.
setTimeout(() => page.start());
setTimeout(() => page.prepareFor());
