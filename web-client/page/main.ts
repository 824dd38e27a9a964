import { connect, type Room, type RoomStats } from "@wzp/client";
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

const page = new Page(connect);
window.wzp = {
  get room() {
    return page.room;
  },
  async stats() {
    return page.room ? page.room.stats() : { transport: null, joinMs: 0, sources: [], sending: [] };
  },
};
page.start();
