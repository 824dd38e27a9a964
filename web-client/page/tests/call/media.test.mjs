// What people send each other: the built page (dist/page) in Chromium and a real gateway, whose binary WZP_GATEWAY names.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BINARY, enter as join, moves, startGateway, stats, untilStats } from "../gateway.mjs";
import { until } from "../../../smoke/browsers.js";
import { accessible, endAll, inState, launch, shot } from "../harness.mjs";

describe("pictures and sound through a gateway", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
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

  test("two browsers see and hear each other, agree on who is there, and notice the leave", async () => {
    const ana = await enter("Ana", "both");
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor();
    await ana.page.evaluate(() => {
      globalThis.changes = [];
      window.wzp.room.on("participantchanged", ({ alias }) => globalThis.changes.push([alias, performance.now()]));
    });
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
    const changes = await ana.page.evaluate(() => globalThis.changes);
    for (const alias of ["Ana", "Ben"]) {
      const times = changes.filter(([who]) => who === alias).map(([, at]) => at);
      assert.ok(times.every((at, index) => index === 0 || at - times[index - 1] > 45), `changes of ${alias} at ${times.map(Math.round)} ms: one event for each 50 ms`);
    }
    await ben.page.evaluate(() => {
      globalThis.late = [];
      const { room } = window.wzp;
      const tell = (what) => () => room.state === "closed" && globalThis.late.push(what);
      for (const { tracks } of room.participants.values()) for (const track of tracks) track.on("element", tell("element"));
      for (const type of ["participantchanged", "trackremoved", "participantleft"]) room.on(type, tell(type));
    });
    await ben.page.getByRole("button", { name: "Leave" }).click();
    await inState(ben.page, "ended");
    await ana.page.getByRole("heading", { name: "You are alone here" }).waitFor({ timeout: 10_000 });
    assert.deepEqual(await ben.page.evaluate(() => globalThis.late), [], "a closed room is silent");
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

  test("a camera that ends is switched off for the others, and on again with another one", async () => {
    const [ana, ben] = [await enter("Ana", "ends"), await enter("Ben", "ends")];
    await ana.page.locator(".tile:not([data-local])[data-picture]").waitFor();
    const video = () => ana.page.evaluate(() => [...window.wzp.room.participants.values()].find(({ alias }) => alias === "Ben")?.muted.video);
    await until(async () => (await video()) === false, 5000, "Ben's camera");
    await ben.page.evaluate(() => window.wzp.room.local.publications.find(({ kind }) => kind === "video").track.stop());
    await until(async () => (await video()) === true, 5000, "that it is off");
    await ben.page.evaluate(async () => {
      const devices = await navigator.mediaDevices.getUserMedia({ video: true });
      await window.wzp.room.local.publications.find(({ kind }) => kind === "video").replaceTrack(devices.getVideoTracks()[0]);
    });
    await until(async () => (await video()) === false, 5000, "that it is on");
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
    // Joined and shared are told for some seconds; the picture is to show the call itself.
    await ana.page.waitForFunction(() => document.querySelector("#toasts").childElementCount === 0);
    await shot(ana.page, "gateway-screen-desktop-light");
    await ana.page.getByRole("button", { name: "Stats" }).click();
    await ana.page.waitForFunction(() => [...document.querySelectorAll(".chart polyline")].every((line) => line.getAttribute("points").split(" ").length > 4));
    await shot(ana.page, "gateway-stats-desktop-light");
    await ben.page.getByRole("button", { name: "Screen", exact: true }).click();
    await screen.waitFor({ state: "detached" });
    assert.deepEqual([...ana.errors, ...ben.errors], []);
    await ana.context.close();
    await ben.context.close();
  });
});
