// The built page (dist/page) in Chromium against a real gateway, whose binary WZP_GATEWAY names: the whole way through.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { BINARY, startGateway } from "./gateway.mjs";
import { accessible, endAll, inState, launch, open, shot } from "./harness.mjs";

const DIST = fileURLToPath(new URL("../../dist/page/", import.meta.url));

const stats = (page) => page.evaluate(() => window.wzp.stats());

/** Waits until `window.wzp.stats()` satisfies a condition given as the text of a function. */
async function untilStats(page, condition, timeout = 20_000) {
  await page.waitForFunction(`window.wzp.stats().then(${condition})`, undefined, { timeout, polling: 200 });
}

/** Whether the picture of a participant changes within a second or two. */
async function moves(page, alias) {
  const look = () =>
    page.evaluate((name) => {
      const source = document.querySelector(`.tile canvas[aria-label="${name}"], .tile video[aria-label="${name}"]`);
      const copy = document.createElement("canvas");
      copy.width = 64;
      copy.height = 36;
      const context = copy.getContext("2d");
      context.drawImage(source, 0, 0, 64, 36);
      return [...context.getImageData(0, 0, 64, 36).data].join();
    }, alias);
  const first = await look();
  for (let tries = 0; tries < 20; tries += 1) {
    await page.waitForTimeout(150);
    if ((await look()) !== first) return true;
  }
  return false;
}

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

  const enter = async (name, room, more = "", options = {}, at = gateway, by = browser) => {
    const visit = await open(by, options);
    await visit.page.goto(`${at.base}/${room}?name=${name}&autojoin=1${more}`);
    await inState(visit.page, "call");
    return visit;
  };

  test("two browsers see and hear each other, agree on who is there, and notice the leave", async () => {
    const ana = await enter("Ana", "both");
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor();
    const ben = await enter("Ben", "both");
    for (const [{ page }, other] of [[ana, "Ben"], [ben, "Ana"]]) {
      await page.locator(`.tile canvas[aria-label="${other}"], .tile video[aria-label="${other}"]`).waitFor();
      await untilStats(page, `(s) => s.sources.some((x) => x.kind === "video" && x.framesDecoded > 5 && x.firstFrameMs > 0 && x.width > 0)`);
      // The invented microphone beeps once a second.
      await untilStats(page, `(s) => s.sources.some((x) => x.kind === "audio" && x.audioLevel > 0.001 && x.packets > 20)`);
      assert.ok(await moves(page, other), `${other} moves`);
      // On a busy machine an answer may come without any sources.
      await untilStats(page, `(s) => s.sources.length > 0 && s.sources.every((x) => x.alias === "${other}")`);
      const { transport, joinMs } = await stats(page);
      assert.ok(["websocket", "webrtc"].includes(transport));
      assert.ok(joinMs > 0);
      assert.equal(await page.evaluate(() => window.wzp.room.participants.size), 2);
    }
    const id = await ana.page.locator('.tile:not([data-local])').getAttribute("data-participant");
    assert.equal(Number(id), await ben.page.evaluate(() => window.wzp.room.local.id));
    await shot(ana.page, "gateway-two-browsers-desktop-light");
    await accessible(ana.page, "a real call");
    await ben.page.getByRole("button", { name: "Leave" }).click();
    await inState(ben.page, "ended");
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor({ timeout: 10_000 });
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
  });

  test("mute and camera are seen by the others, and come back", async () => {
    const ana = await enter("Ana", "marks");
    const ben = await enter("Ben", "marks");
    const tile = ana.page.locator(".tile:not([data-local])");
    await ana.page.locator(".tile:not([data-local])[data-picture]").waitFor();
    await ben.page.getByRole("button", { name: "Mute" }).click();
    await ana.page.locator(".tile:not([data-local])[data-muted]").waitFor();
    await ben.page.getByRole("button", { name: "Camera" }).click();
    await ana.page.locator(".tile:not([data-local]):not([data-picture])").waitFor();
    await shot(ana.page, "gateway-marks-desktop-light");
    await ben.page.getByRole("button", { name: "Mute" }).click();
    await ben.page.getByRole("button", { name: "Camera" }).click();
    await ana.page.locator(".tile:not([data-local])[data-picture]:not([data-muted])").waitFor();
    assert.ok(await moves(ana.page, "Ben"), "the picture moves again");
    assert.equal(await tile.count(), 1);
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
  });

  for (const way of ["websocket", "webrtc"]) test(`another camera is taken over in the middle of the call; one that cannot be sent is told in words (${way})`, async () => {
    // Chromium's second invented camera sees depths only, which no encoder takes.
    const rich = await launch({ cameras: 3 });
    const ana = await enter("Ana", `devices-${way}`);
    const ben = await enter("Ben", `devices-${way}`, `&transport=${way}`, {}, gateway, rich);
    await untilStats(ben.page, `(s) => s.transport === "${way}"`);
    const decoded = `(s) => s.sources.find((x) => x.kind === "video")?.framesDecoded ?? 0`;
    const choose = async (label) => {
      await ben.page.getByRole("button", { name: "Settings" }).click();
      const list = ben.page.getByRole("dialog").getByLabel("Camera");
      await list.selectOption({ label });
      await ben.page.waitForFunction((wanted) => window.wzp.room.local.publications.find(({ source }) => source === "camera")?.track.label === wanted, label);
      const value = await list.inputValue();
      await ben.page.keyboard.press("Escape");
      return value;
    };
    const seen = ana.page.locator(".tile:not([data-local])[data-picture]");
    await seen.waitFor();
    const chosen = await choose("fake_device_2");
    assert.equal(await ben.page.evaluate(() => localStorage.getItem("wzp.videoinput")), chosen, "the choice is remembered");
    const count = await ana.page.evaluate(`window.wzp.stats().then(${decoded})`);
    await untilStats(ana.page, `(s) => (${decoded})(s) > ${count + 10}`);
    assert.ok(await moves(ana.page, "Ben"));
    await ben.page.evaluate(() => (globalThis.camera = window.wzp.room.local.publications.find(({ source }) => source === "camera")));
    await choose("fake_device_1");
    await ben.page.locator("#toasts").getByText("The others do not get your camera").waitFor();
    assert.equal(await ben.page.evaluate(() => globalThis.camera.state), "failed");
    await choose("fake_device_0");
    await ben.page.waitForFunction(() => globalThis.camera.state === "sending" && globalThis.camera.failure === undefined);
    assert.ok(await ben.page.evaluate(() => window.wzp.room.local.publications.includes(globalThis.camera)), "the same publication goes on");
    await seen.waitFor();
    assert.ok(await moves(ana.page, "Ben"), "a good camera mends it");
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await rich.close();
  });

  test("a publication that failed is revived by unmuting, and by itself when its track is good again", async () => {
    const ana = await enter("Ana", "revive");
    const ben = await enter("Ben", "revive", "&transport=ws&camera=off");
    // Pictures of our own making: no encoder takes those of eight pixels by eight.
    await ben.page.evaluate(async () => {
      const generator = new MediaStreamTrackGenerator({ kind: "video" });
      const writer = generator.writable.getWriter();
      globalThis.good = false;
      let shade = 0;
      setInterval(() => {
        const [codedWidth, codedHeight] = globalThis.good ? [320, 180] : [8, 8];
        const data = new Uint8Array(4 * codedWidth * codedHeight).fill((shade += 16));
        void writer.write(new VideoFrame(data, { format: "RGBX", codedWidth, codedHeight, timestamp: performance.now() * 1000 }));
      }, 100);
      globalThis.made = await window.wzp.room.publish(generator, { source: "camera" });
    });
    const state = (wanted) => ben.page.waitForFunction((each) => globalThis.made.state === each, wanted, { polling: 100 });
    const tile = ana.page.locator(".tile:not([data-local])[data-picture]");
    await state("failed");
    assert.match(await ben.page.evaluate(() => globalThis.made.failure), /encoder/u);
    await ben.page.evaluate(() => (globalThis.good = true));
    await state("sending");
    await tile.waitFor();
    assert.ok(await moves(ana.page, "Ben"), "it came back by itself");
    await ben.page.evaluate(() => (globalThis.good = false));
    await state("failed");
    await ben.page.evaluate(async () => {
      await globalThis.made.mute(true);
      globalThis.good = true;
      await globalThis.made.mute(false);
    });
    await state("sending");
    await tile.waitFor();
    assert.ok(await moves(ana.page, "Ben"), "unmuting brought it back");
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
  });

  test("a shared screen arrives as a tile of its own, large, and goes away again", async () => {
    const ana = await enter("Ana", "screens");
    const ben = await enter("Ben", "screens");
    await ben.page.evaluate(() => {
      // Chromium without a display has no screen to share.
      navigator.mediaDevices.getDisplayMedia = () => {
        const canvas = document.createElement("canvas");
        canvas.width = 1280;
        canvas.height = 720;
        const context = canvas.getContext("2d");
        let line = 0;
        setInterval(() => {
          context.fillStyle = "#fff";
          context.fillRect(0, 0, 1280, 720);
          context.fillStyle = "#134";
          context.font = "48px sans-serif";
          context.fillText(`Quarterly plan, page ${(line += 1)}`, 80, 120);
        }, 100);
        return Promise.resolve(canvas.captureStream(10));
      };
    });
    await ben.page.getByRole("button", { name: "Screen", exact: true }).click();
    const screen = ana.page.locator('.tile[data-source="screen"]');
    await ana.page.locator('.tile[data-source="screen"][data-large][data-picture]').waitFor();
    await untilStats(ana.page, `(s) => s.sources.some((x) => x.slot === 1 && x.width === 1280 && x.framesDecoded > 5)`);
    await ana.page.getByRole("button", { name: "People" }).click();
    await ana.page.getByText("shares the screen").first().waitFor({ state: "attached" });
    await ana.page.waitForTimeout(2500);
    await shot(ana.page, "gateway-screen-desktop-light");
    await ana.page.getByRole("button", { name: "Stats" }).click();
    await ana.page.waitForTimeout(5000);
    await shot(ana.page, "gateway-stats-desktop-light");
    await ben.page.getByRole("button", { name: "Screen", exact: true }).click();
    await screen.waitFor({ state: "detached" });
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
  });

  test("a tab that is closed is seen to leave", async () => {
    const ana = await enter("Ana", "closing");
    const ben = await enter("Ben", "closing");
    await ana.page.locator(".tile:not([data-local])").waitFor();
    await ben.page.close({ runBeforeUnload: false });
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor({ timeout: 10_000 });
    await ana.context.close();
    await ben.context.close();
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
    const second = await ana.context.newPage();
    await second.goto(`${gateway.base}/twice?name=Ana&autojoin=1`);
    await inState(second, "call");
    await ana.page.getByRole("heading", { name: "You joined from another tab" }).waitFor();
    assert.equal(await ana.page.evaluate(() => document.body.dataset.state), "refused");
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

  test("blocked sound shows “Tap to hear”, and a tap starts it", async () => {
    // A page that captures may play at once, so the one that is blocked has no devices.
    const strict = await launch({ gesture: true, devices: false });
    const ana = await enter("Ana", "blocked");
    const ben = await enter("Ben", "blocked", "", {}, gateway, strict);
    const button = ben.page.getByRole("button", { name: "Tap to hear" });
    await button.waitFor();
    await shot(ben.page, "gateway-tap-to-hear-desktop-light");
    await button.click();
    await button.waitFor({ state: "hidden" });
    await untilStats(ben.page, `(s) => s.sources.some((x) => x.kind === "audio" && x.audioLevel > 0.001)`);
    assert.deepEqual(ben.errors, []);
    await ana.context.close();
    await strict.close();
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
    await page.getByText("Connection lost.").waitFor();
    await shot(page, "gateway-reconnecting-desktop-light");
    await page.getByText("Still no connection.").waitFor({ timeout: 15_000 });
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
  const files = (folder) => readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? files(join(folder, entry.name)) : [join(folder, entry.name)]));
  // Pictures for the home screen are fetched only by those who install the page.
  const loaded = files(DIST).filter((file) => statSync(file).isFile() && !/\.(map|png)$/u.test(file) && !/app-icon/u.test(file));
  const bytes = loaded.reduce((sum, file) => sum + gzipSync(readFileSync(file)).length, 0);
  console.log(`first load: ${bytes} bytes with gzip`);
  assert.ok(bytes <= 150_000, `${bytes} bytes`);
});
