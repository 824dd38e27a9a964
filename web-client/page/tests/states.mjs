// The states of the page, and what leads to each. Written with what Playwright's and puppeteer's pages have in common (`evaluate`, `click` by selector,
// `waitForFunction` without arguments, `waitForSelector`), so that Chromium and Firefox go the same way.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";
import { inState, launch, onExit, open } from "./harness.mjs";

/** Serves the page with its invented rooms. @returns its origin */
export async function serveInvented() {
  const configFile = fileURLToPath(new URL("../dev/vite.config.ts", import.meta.url));
  const server = await createServer({ configFile, mode: "development", logLevel: "error", server: { port: 0 } });
  await server.listen();
  onExit(() => server.close());
  return `http://127.0.0.1:${server.httpServer.address().port}`;
}

/** Chromium and the page with its invented rooms, warmed up. */
export async function startInvented() {
  const base = await serveInvented();
  const browser = await launch();
  // The first visit makes Vite bundle what it has to; the page may be loaded twice then.
  const { page, context } = await open(browser);
  await page.goto(base + call());
  await inState(page, "call");
  await page.waitForSelector("#alone .qr svg");
  await context.close();
  return { base, browser };
}

/** Opens a page in a call with `people` members and runs a test in it; the console has to stay silent. `options.more` goes to the address. */
export async function inCallOf({ base, browser }, people, options, run) {
  const { context, page, errors } = await open(browser, options);
  await options.before?.(page);
  await page.goto(base + call(`&people=${people}${options.more ?? ""}`));
  await inState(page, "call");
  await settled(page);
  await run(page);
  assert.deepEqual(errors, []);
  await context.close();
}

/** Resolves when the page has drawn what it was told, animations included. */
export const settled = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300)))));

/** The address of a call in the invented room of `page/dev`. */
export const call = (more = "") => `/standup?name=Mia&autojoin=1${more}`;

/** Presses a button of the call's bar; on a narrow page the menu is opened first. */
export async function press(page, id) {
  await openMenu(page);
  await page.click(`#${id}`);
}

export async function openMenu(page) {
  if (await page.evaluate(() => document.querySelector("#more").offsetParent !== null && !document.querySelector("#extras").hasAttribute("data-open"))) await page.click("#more");
}

/** name → address, state, what leads there, and what to do in the call before that. */
export const STATES = {
  lobby: ["/standup?name=Mia", "lobby", (page) => page.waitForFunction(() => document.querySelector("#preview-video")?.videoWidth > 0 && document.querySelector("#room-people .face"))],
  "lobby-incomplete": ["/", "lobby", (page) => page.click("#join")],
  connecting: [call("&slow=1"), "connecting"],
  alone: [call(), "call", (page) => page.waitForSelector("#alone .qr svg")],
  "call-2": [call("&people=2"), "call"],
  "call-4": [call("&people=4"), "call"],
  "call-9": [call("&people=9"), "call"],
  "call-25": [call("&people=25"), "call"],
  "call-upright": [call("&people=2&upright=1"), "call"],
  "call-screen": [call("&people=6&screen=1"), "call"],
  "speaker-view": [call("&people=14"), "call", (page) => page.waitForSelector(".tile[data-large]")],
  "plain-grid": [call("&people=14"), "call", (page) => press(page, "speaker-view")],
  menu: [call("&people=4"), "call", openMenu],
  people: [call("&people=6"), "call", (page) => press(page, "show-people")],
  stats: [call("&people=3"), "call", (page) => press(page, "show-stats").then(() => page.waitForFunction(() => document.querySelectorAll(".chart polyline[points*=' ']").length > 3))],
  settings: [call("&people=3"), "call", (page) => press(page, "show-settings")],
  marks: [
    call("&people=5"),
    "call",
    async (page) => {
      await page.evaluate(() => {
        const { room } = globalThis;
        room.change(2, { state: "reconnecting" });
        room.change(3, { muted: { audio: true, video: true } });
        room.participants.get(4).tracks[1].pause("bandwidth");
        room.participants.get(5).tracks[1].pause("codec");
      });
      await page.click("#mute");
      await page.click("#camera");
    },
  ],
  "sound-blocked": [
    call("&people=3"),
    "call",
    (page) =>
      page.evaluate(() => {
        globalThis.room.audio.blocked = true;
        globalThis.room.fire("audioblocked", true);
      }),
  ],
  reconnecting: [call("&people=4"), "reconnecting", undefined, (page) => page.evaluate(() => globalThis.room.setState("reconnecting"))],
  left: [call("&people=2"), "ended", undefined, (page) => page.click("#leave")],
  "gateway-gone": [call("&people=2"), "ended", undefined, (page) => page.evaluate(() => globalThis.room.setState("closed", "gateway_gone"))],
  replaced: [call("&people=2"), "refused", undefined, (page) => page.evaluate(() => globalThis.room.setState("closed", "replaced"))],
  "room-full": [call("&refuse=room_full"), "refused"],
  token: [call("&refuse=unauthorized"), "refused"],
};
