// How the page and a gateway get on: the built page (dist/page) in Chromium against a real gateway, whose binary WZP_GATEWAY names.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { BINARY, enter as join, startGateway, stats, tunnel, untilStats } from "../gateway.mjs";
import { firefox, until, watch } from "../../../smoke/browsers.js";
import { endAll, inState, launch, onExit, open, shot } from "../harness.mjs";

const DIST = fileURLToPath(new URL("../../../dist/page/", import.meta.url));

/** Looks at what the tile of the other one shows, as often as the page is drawn. */
const watchTile = (page) => page.evaluate(() => {
  const small = Object.assign(document.createElement("canvas"), { width: 16, height: 9 });
  const context = small.getContext("2d", { willReadFrequently: true });
  globalThis.looks = { all: 0, empty: 0, changes: 0, elements: new Set() };
  let before = "";
  const look = () => {
    requestAnimationFrame(look);
    const element = document.querySelector(".tile:not([data-local]) :is(video, canvas)[aria-label]");
    const { looks } = globalThis;
    looks.all += 1;
    if (element) looks.elements.add(element.localName);
    context.clearRect(0, 0, 16, 9);
    if (element) context.drawImage(element, 0, 0, 16, 9);
    const { data } = context.getImageData(0, 0, 16, 9);
    if (data.every((byte, index) => index % 4 === 3 || byte === 0)) looks.empty += 1;
    const now = data.join();
    if (now !== before) looks.changes += 1;
    before = now;
  };
  look();
});

/** What {@link watchTile} saw: looks, empty ones, changes of the picture, and elements. */
const seenInTile = (page) => page.evaluate(() => ({ ...globalThis.looks, elements: [...globalThis.looks.elements].sort() }));

describe("the page and a gateway", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
  let gateway;
  let browser;

  before(async () => {
    gateway = await startGateway();
    browser = await launch();
  });

  after(async () => {
    await endAll();
  });

  const enter = (name, room, more, options, at = gateway, by = browser) => join(at, by, name, room, more, options);

  test("a tab that is closed is seen to leave", async () => {
    const ana = await enter("Ana", "closing");
    const ben = await enter("Ben", "closing");
    await ana.page.locator(".tile:not([data-local])").waitFor();
    await ben.page.close({ runBeforeUnload: false });
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor({ timeout: 10_000 });
    await ana.context.close();
    await ben.context.close();
  });

  test("somebody whose connection breaks is marked as reconnecting on the tile and in the list", async () => {
    const ana = await enter("Ana", "breaking");
    const way = await tunnel(gateway);
    const ben = await enter("Ben", "breaking", "&transport=ws", {}, way);
    await ana.page.locator(".tile:not([data-local])").waitFor();
    await ana.page.getByRole("button", { name: "People" }).click();
    way.cut();
    await ana.page.locator(".tile:not([data-local])[data-reconnecting] .overlay").getByText("Reconnecting…").waitFor();
    await ana.page.locator("#people-list").getByText("Reconnecting…").waitFor();
    assert.deepEqual(ana.errors, []);
    await ben.context.close();
    await ana.context.close();
  });

  test("the connection is there when the button is pressed, and is the one that is used", async () => {
    const way = await tunnel(gateway);
    const sockets = () => way.paths.filter((asked) => asked === "/ws/soon").length;
    const visit = await open(browser);
    await visit.page.goto(`${way.base}/soon?name=Ana`);
    const button = visit.page.getByRole("button", { name: "Join" });
    await visit.page.waitForFunction(() => document.activeElement?.id === "join");
    await visit.page.waitForTimeout(500);
    assert.equal(sockets(), 0, "the page sets the focus by itself");
    await button.hover();
    await until(() => sockets() === 1, 5000, "the connection");
    await button.click();
    await inState(visit.page, "call");
    assert.equal(sockets(), 1);
    assert.deepEqual(visit.errors, []);
    await visit.context.close();
    way.cut();
  });

  test("the lobby tells who is in the room", async () => {
    const ana = await enter("Ana", "peek");
    const visit = await open(browser);
    await visit.page.goto(`${gateway.base}/peek`);
    await visit.page.getByText("Ana is here").waitFor();
    await visit.page.goto(`${gateway.base}/nobody-there`);
    await visit.page.getByText("Nobody is here yet.").waitFor();
    assert.deepEqual([...ana.errors, ...visit.errors], []);
    await ana.context.close();
    await visit.context.close();
  });

  test("the same browser joining again takes over, and the older tab says so", async () => {
    const ana = await enter("Ana", "twice");
    await ana.page.evaluate(() => {
      globalThis.told = [];
      window.wzp.room.on("state", (state) => globalThis.told.push(state));
      window.wzp.room.on("error", ({ code }) => globalThis.told.push(code));
    });
    const second = await ana.context.newPage();
    await second.goto(`${gateway.base}/twice?name=Ana&autojoin=1`);
    await inState(second, "call");
    await ana.page.getByRole("heading", { name: "You joined from another tab" }).waitFor();
    assert.equal(await ana.page.evaluate(() => document.body.dataset.state), "refused");
    assert.deepEqual(await ana.page.evaluate(() => globalThis.told), ["closed"], "what ends a call is told once");
    await ana.page.getByRole("button", { name: "Join again" }).click();
    await inState(ana.page, "call");
    await inState(second, "refused");
    assert.deepEqual(ana.errors, []);
    await ana.context.close();
  });

  test("switches of the address are obeyed", async () => {
    const asked = await open(browser);
    await asked.context.addInitScript(() => {
      const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      globalThis.asked = [];
      navigator.mediaDevices.getUserMedia = (constraints) => {
        globalThis.asked.push(structuredClone(constraints));
        return original(constraints);
      };
    });
    await asked.page.goto(`${gateway.base}/switches?name=Ana&autojoin=1&processing=off&transport=ws&camera=off`);
    await inState(asked.page, "call");
    await asked.page.waitForFunction(() => window.wzp.room.local.publications.length === 1);
    const [{ audio, video }] = await asked.page.evaluate(() => globalThis.asked);
    assert.deepEqual([audio.echoCancellation, audio.noiseSuppression, audio.autoGainControl, video], [false, false, false, false]);
    assert.equal((await stats(asked.page)).transport, "websocket");
    const silent = await enter("Ben", "switches", "&mic=off");
    await silent.page.waitForFunction(() => window.wzp.room.local.publications.some(({ kind }) => kind === "video"));
    assert.equal(await silent.page.evaluate(() => window.wzp.room.local.publications.some(({ kind, muted }) => kind === "audio" && !muted)), false);
    assert.deepEqual([...asked.errors, ...silent.errors], []);
    await asked.context.close();
    await silent.context.close();
  });

  test("without devices one joins, hears and sees", async () => {
    const bare = await launch({ devices: false });
    const ana = await enter("Ana", "bare");
    const ben = await enter("Ben", "bare", "", {}, gateway, bare);
    await untilStats(ben.page, `(s) => s.sources.some((x) => x.kind === "video" && x.framesDecoded > 5)`);
    await ana.page.locator(".tile:not([data-local])").waitFor();
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await bare.close();
  });

  // Headless Chromium starts sound whatever its policy says.
  for (const transport of ["webrtc", "ws"])
    test(`sound that Firefox blocks shows “Tap to hear”, and a tap starts it, by ${transport}`, async () => {
      const strict = await firefox({ "media.autoplay.default": 1, "media.autoplay.blocking_policy": 0, "media.peerconnection.ice.obfuscate_host_addresses": false });
      onExit(() => strict.browser.close());
      const ana = await enter("Ana", `blocked-${transport}`);
      const errors = watch(strict.page);
      // A page that captures may play at once, so this one has no devices.
      await strict.page.goto(`${gateway.base}/blocked-${transport}?name=Ben&autojoin=1&camera=off&mic=off&transport=${transport}`);
      // Whatever puppeteer evaluates in a page counts as a click of its user: nothing is asked until the page has had time to play.
      await ana.page.locator(".tile:not([data-local])").waitFor();
      await ana.page.waitForTimeout(3000);
      const heard = () => strict.page.evaluate(() => globalThis.wzp.stats().then(({ sources }) => sources.find(({ kind }) => kind === "audio")));
      const before = await heard();
      assert.equal((await strict.page.evaluate(() => globalThis.wzp.stats())).transport, transport === "ws" ? "websocket" : "webrtc");
      assert.ok(before.packets > 50, `${before.packets} packets`);
      assert.equal(before.audioLevel, 0, "it is played before the tap");
      const button = await strict.page.waitForSelector("#tap-to-hear", { visible: true, timeout: 5_000 });
      assert.equal((await button.evaluate((one) => one.textContent)).trim(), "Tap to hear");
      await shot(strict.page, `gateway-tap-to-hear-firefox-${transport}`);
      await button.click();
      await strict.page.waitForSelector("#tap-to-hear", { hidden: true, timeout: 5_000 });
      await until(async () => (await heard()).audioLevel > 0.001, 20_000, "sound that is played");
      assert.deepEqual([...ana.errors, ...errors], []);
      await ana.context.close();
      await strict.browser.close();
    });

  test("a full room says so, and lets in when there is a place", async () => {
    const small = await startGateway("--max-members", "1");
    const ana = await enter("Ana", "small", "", {}, small);
    const ben = await open(browser);
    await ben.page.goto(`${small.base}/small?name=Ben&autojoin=1`);
    await ben.page.getByRole("heading", { name: "The room is full" }).waitFor();
    assert.equal(await ben.page.evaluate(() => document.body.dataset.state), "refused");
    await ana.page.getByRole("button", { name: "Leave" }).click();
    await inState(ana.page, "ended");
    await ben.page.waitForFunction(() => document.body.dataset.state === "call", undefined, { timeout: 15_000 });
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
    await small.stop();
  });

  test("a gateway with tokens asks for one, and takes it", async () => {
    const closed = await startGateway("--token", "open-sesame");
    const { context, page, errors } = await open(browser);
    await page.goto(`${closed.base}/vault?name=Ana&autojoin=1`);
    await page.getByRole("heading", { name: "This gateway asks for a token" }).waitFor();
    await page.getByRole("textbox", { name: "Access token" }).fill("wrong");
    await page.getByRole("button", { name: "Join again" }).click();
    await page.getByRole("heading", { name: "The token was not accepted" }).waitFor();
    await page.getByRole("textbox", { name: "Access token" }).fill("open-sesame");
    await page.keyboard.press("Enter");
    await inState(page, "call");
    assert.deepEqual(errors, []);
    await context.close();
    const direct = await enter("Ben", "vault", "&token=open-sesame", {}, closed);
    assert.deepEqual(direct.errors, []);
    await direct.context.close();
    await closed.stop();
  });

  test("a gateway that dies shows the banner, and one that returns gives the call back", { timeout: 90_000 }, async () => {
    const mortal = await startGateway();
    const { context, page } = await enter("Ana", "mortal", "", {}, mortal);
    mortal.kill();
    await inState(page, "reconnecting");
    await page.locator("#banner").getByText("Connection lost.").waitFor();
    await shot(page, "gateway-reconnecting-desktop-light");
    await page.locator("#banner").getByText("Still no connection.").waitFor({ timeout: 15_000 });
    const risen = await startGateway("--http", new URL(mortal.base).host);
    await page.waitForFunction(() => document.body.dataset.state === "call", undefined, { timeout: 30_000 });
    assert.equal(await page.locator("#banner").isVisible(), false);
    const ben = await enter("Ben", "mortal", "", {}, risen);
    await ben.page.locator(".tile:not([data-local])[data-picture]").waitFor();
    risen.kill();
    await inState(page, "reconnecting");
    await page.getByRole("button", { name: "Leave" }).click();
    await inState(page, "ended");
    // What the browser itself writes about refused connections cannot be kept out of its console.
    await context.close();
    await ben.context.close();
    await risen.stop();
    await mortal.stop();
  });

  test("the last picture stays while the connection is made anew", { timeout: 60_000 }, async () => {
    const way = await tunnel(gateway);
    const ana = await enter("Ana", "anew", "&transport=webrtc", {}, way);
    const ben = await enter("Ben", "anew");
    await ana.page.locator(".tile:not([data-local])[data-picture]").waitFor();
    await untilStats(ana.page, `({ transport }) => transport === "webrtc"`);
    await watchTile(ana.page);
    way.tear();
    await inState(ana.page, "reconnecting");
    await inState(ana.page, "call");
    await untilStats(ana.page, `({ transport }) => transport === "webrtc"`);
    await ana.page.waitForTimeout(2000);
    const looks = await seenInTile(ana.page);
    assert.ok(looks.all > 20, JSON.stringify(looks));
    assert.equal(looks.empty, 0, JSON.stringify(looks));
    assert.deepEqual(looks.elements, ["canvas", "video"], "by both roads");
    await ben.context.close();
    await ana.context.close();
    way.cut();
  });

  test("by the WebSocket a canvas hands its picture over to a video without a gap", { timeout: 60_000 }, async () => {
    const ana = await enter("Ana", "cheaper", "&transport=ws");
    const ben = await enter("Ben", "cheaper");
    await ana.page.locator(".tile:not([data-local])[data-picture] canvas").waitFor();
    await watchTile(ana.page);
    await ana.page.locator(".tile:not([data-local])[data-picture] video").waitFor();
    await ana.page.evaluate(() => (globalThis.looks.changes = 0));
    await ana.page.waitForTimeout(2000);
    const looks = await seenInTile(ana.page);
    assert.equal(looks.empty, 0, JSON.stringify(looks));
    assert.ok(looks.changes > 5, JSON.stringify(looks));
    assert.deepEqual(looks.elements, ["canvas", "video"]);
    // Taken out of the page and put back, as when WebRTC has had its place, it goes on.
    await ana.page.evaluate(async () => {
      const video = document.querySelector(".tile:not([data-local]) video");
      const place = video.parentElement;
      video.remove();
      await new Promise((resolve) => setTimeout(resolve, 300));
      place.append(video);
      globalThis.looks.changes = 0;
    });
    await ana.page.waitForTimeout(2000);
    assert.ok((await seenInTile(ana.page)).changes > 5, "it stands still after it was put back");
    assert.equal(await ana.page.evaluate(() => globalThis.wzp.stats().then(({ transport }) => transport)), "websocket");
    await ben.context.close();
    await ana.page.locator(".tile:not([data-local]) video").waitFor({ state: "detached" });
    await ana.context.close();
  });

  test("nothing violates the content security policy, and it is strict", async () => {
    const { context, page, errors } = await open(browser);
    await context.addInitScript(() => {
      globalThis.violations = [];
      document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => globalThis.violations.push(`${violatedDirective} ${blockedURI}`));
    });
    const answer = await page.goto(`${gateway.base}/policy?name=Ana&autojoin=1`);
    assert.match(answer.headers()["content-security-policy"], /default-src 'none'/u);
    await inState(page, "call");
    await page.waitForSelector("#alone .qr svg");
    await page.getByRole("button", { name: "Stats" }).click();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Leave" }).click();
    await inState(page, "ended");
    assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
    assert.deepEqual(errors, []);
    await context.close();
  });
});

test("the first load is at most 150 kB with gzip", () => {
  const files = (folder) => readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? files(path(folder, entry.name)) : [path(folder, entry.name)]));
  // Pictures for the home screen are fetched only by those who install the page.
  const loaded = files(DIST).filter((file) => statSync(file).isFile() && !/\.(map|png)$/u.test(file) && !/app-icon/u.test(file));
  const bytes = loaded.reduce((sum, file) => sum + gzipSync(readFileSync(file)).length, 0);
  console.log(`first load: ${bytes} bytes with gzip`);
  assert.ok(bytes <= 150_000, `${bytes} bytes`);
});
