// Microphone, camera and speaker of the page, with an invented room in place of a gateway: what is opened, closed, remembered, exchanged, lost and found.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accessible, endAll, inState, launch, open } from "./harness.mjs";
import { call, inCallOf, press, settled, startInvented } from "./states.mjs";

let browser;
let base;

before(async () => {
  ({ browser, base } = await startInvented());
});

after(endAll);

const inCall = (people, options, run) => inCallOf({ base, browser }, people, options, run);

/** Keeps the tracks that the page was given, and with `slow` each answer until `grant()` is called, as a person who reads the question first. */
function watchDevices(slow) {
  const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  globalThis.given = [];
  globalThis.asks = 0;
  let open = () => undefined;
  let gate = slow ? new Promise((resolve) => (open = resolve)) : Promise.resolve();
  globalThis.grant = () => open();
  globalThis.hold = () => {
    gate = new Promise((resolve) => (open = resolve));
  };
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    globalThis.asks += 1;
    const missing = globalThis.unplugged;
    await gate;
    if (missing) throw new DOMException("Nothing there", "NotFoundError");
    const stream = await original(constraints);
    globalThis.given.push(...stream.getTracks());
    return stream;
  };
}

const watched = (slow) => (page) => page.addInitScript(watchDevices, slow);
const published = (page) => page.waitForFunction(() => globalThis.room.local.publications.length === 2);

describe("what nobody wants any more is closed", () => {
  test("devices that are granted after a refusal", async () => {
    const { context, page, errors } = await open(browser);
    await watched(true)(page);
    await page.goto(base + call("&refuse=unauthorized"));
    await inState(page, "refused");
    await page.evaluate(() => globalThis.grant());
    await page.waitForFunction(() => globalThis.given.length > 0 && globalThis.given.every(({ readyState }) => readyState === "ended"));
    assert.equal(await page.evaluate(() => globalThis.asks), 1, "and no other is asked for");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("devices that are granted after leaving; joining again opens them anew", () =>
    inCall(2, { before: watched(true) }, async (page) => {
      await page.getByRole("button", { name: "Leave" }).click();
      await inState(page, "ended");
      await page.evaluate(() => globalThis.grant());
      await page.waitForFunction(() => globalThis.given.length > 0 && globalThis.given.every(({ readyState }) => readyState === "ended"));
      await page.getByRole("button", { name: "Join again" }).click();
      await inState(page, "call");
      await published(page);
      assert.equal(await page.evaluate(() => globalThis.given.filter(({ readyState }) => readyState === "live").length), 2);
    }));

  test("a device that is plugged in after the end is left alone; one that is in the call is taken", () =>
    inCall(2, { before: async (page) => (await watched(false)(page), page.addInitScript(() => (globalThis.unplugged = true))) }, async (page) => {
      await page.waitForFunction(() => globalThis.asks > 0);
      await page.locator("#toasts").getByText("No microphone and no camera found.").waitFor();
      await page.getByRole("button", { name: "Leave" }).click();
      await inState(page, "ended");
      const change = () =>
        page.evaluate(async () => {
          navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
          // The page asks the browser for its devices first; an answer to a later question comes after it.
          await navigator.mediaDevices.enumerateDevices();
          await new Promise((resolve) => setTimeout(resolve, 0));
          return globalThis.asks;
        });
      const before = await page.evaluate(() => globalThis.asks);
      await page.evaluate(() => (globalThis.unplugged = false));
      assert.equal(await change(), before);
      await page.evaluate(() => (globalThis.unplugged = true));
      await page.getByRole("button", { name: "Join again" }).click();
      await inState(page, "call");
      await page.waitForFunction((asks) => globalThis.asks > asks, before);
      await page.evaluate(() => (globalThis.unplugged = false));
      await change();
      await published(page);
    }));

  test("a screen that is chosen after leaving; and pressing twice asks once", () =>
    inCall(2, {}, async (page) => {
      await page.evaluate(() => {
        globalThis.screens = [];
        const gate = new Promise((resolve) => (globalThis.grant = resolve));
        navigator.mediaDevices.getDisplayMedia = async () => {
          const stream = document.createElement("canvas").captureStream(5);
          globalThis.screens.push(...stream.getTracks());
          await gate;
          return stream;
        };
      });
      const button = page.getByRole("button", { name: "Screen", exact: true });
      await button.click();
      await button.click();
      await page.getByRole("button", { name: "Leave" }).click();
      await inState(page, "ended");
      await page.evaluate(() => globalThis.grant());
      await page.waitForFunction(() => globalThis.screens.every(({ readyState }) => readyState === "ended"));
      assert.equal(await page.evaluate(() => globalThis.screens.length), 1);
    }));
});

describe("devices", () => {
  test("the meter of the lobby follows the microphone", async () => {
    const { context, page, errors } = await open(browser);
    await page.goto(`${base}/standup?name=Mia`);
    // The invented microphone beeps once a second.
    await page.waitForFunction(() => Number(document.querySelector("#lobby-level").getAttribute("aria-valuenow")) > 35);
    await page.locator("#lobby-level-words").getByText("Sounds good").waitFor();
    await page.getByRole("switch", { name: "Microphone" }).click();
    await page.waitForFunction(() => document.querySelector("#lobby-level").getAttribute("aria-valuenow") === "0");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("those that were chosen are opened again at the next visit", async () => {
    const { context, page, errors } = await open(browser);
    await watched(false)(page);
    await page.goto(`${base}/standup?name=Mia`);
    const list = page.locator("#lobby-audioinput");
    await list.locator("option", { hasText: "Fake Audio Input 2" }).waitFor({ state: "attached" });
    await list.selectOption({ label: "Fake Audio Input 2" });
    const chosen = () => page.waitForFunction(() => globalThis.given.some(({ label, readyState }) => label === "Fake Audio Input 2" && readyState === "live"));
    await chosen();
    await page.reload();
    await chosen();
    assert.equal(await page.evaluate(() => globalThis.asks), 1, "at once, not after another one");
    await page.waitForFunction(() => document.querySelector("#lobby-audioinput").selectedOptions[0]?.textContent === "Fake Audio Input 2");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("microphone and speaker are exchanged in the middle of the call, and muting meanwhile mutes", () =>
    inCall(2, { before: watched(false) }, async (page) => {
      await published(page);
      const sound = `globalThis.room.local.publications.find(({ kind }) => kind === "audio")`;
      await page.evaluate(`globalThis.before = ${sound}`);
      await press(page, "show-settings");
      const dialog = page.getByRole("dialog");
      await page.evaluate(() => globalThis.hold());
      await dialog.locator("#call-audioinput").selectOption({ label: "Fake Audio Input 1" });
      await page.waitForFunction(() => globalThis.asks === 2);
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Mute" }).click();
      await page.waitForFunction(`${sound}.muted`);
      await page.evaluate(() => globalThis.grant());
      await page.waitForFunction(`${sound}.track.label === "Fake Audio Input 1"`);
      assert.equal(await page.evaluate(`${sound}.muted && ${sound} === globalThis.before`), true, "the same publication, still muted");
      await page.getByRole("button", { name: "Mute" }).click();
      await page.waitForFunction(`!${sound}.muted`);
      await press(page, "show-settings");
      const speakers = dialog.locator("#call-audiooutput");
      const value = await speakers.locator("option").last().getAttribute("value");
      await speakers.selectOption(value);
      assert.equal(await page.evaluate(() => globalThis.room.audio.sink), value);
    }));

  test("one that is in use elsewhere, and one that is lost without another to take, are told in words", () =>
    inCall(2, {}, async (page) => {
      await published(page);
      await page.evaluate(() => {
        navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("busy", "NotReadableError"));
        const { track } = globalThis.room.local.publications.find(({ kind }) => kind === "video");
        // What the browser does when a device is pulled.
        track.stop();
        track.dispatchEvent(new Event("ended"));
      });
      await page.locator("#toasts").getByText("Your camera is gone. Plug it in again, or choose another one.").waitFor();
      await page.locator("#announcer").getByText("Your camera is gone.").waitFor({ state: "attached" });
      assert.equal(await page.getByRole("button", { name: "Camera" }).getAttribute("aria-pressed"), "false");
      await page.getByRole("button", { name: "Camera" }).click();
      await page.locator("#toasts").getByText("Your camera is in use by another program.").waitFor();
    }));

  test("that the browser refuses are told in words; joining without is fine", async () => {
    const strict = await launch({ deny: true });
    const { context, page, errors } = await open(strict, { permissions: [] });
    await page.goto(`${base}/standup?name=Mia`);
    await page.getByText("The browser does not let this page use your microphone and camera.").waitFor();
    assert.equal(await page.locator("#lobby-videoinput option").first().textContent(), "Not allowed");
    await accessible(page, "permission refused by the browser");
    await page.getByRole("button", { name: "Join" }).click();
    await inState(page, "call");
    await settled(page);
    assert.equal(await page.getByRole("button", { name: "Mute" }).getAttribute("aria-pressed"), "true");
    assert.deepEqual(errors, []);
    await context.close();
    await strict.close();
  });

  test("are not to be had without https, and the page says so before and after the try", async () => {
    const plain = await launch({ flags: ["--host-resolver-rules=MAP calls.example 127.0.0.1"] });
    const { context, page, errors } = await open(plain, { permissions: [] });
    await page.goto(`${base.replace("127.0.0.1", "calls.example")}/standup?name=Mia&refuse=unsupported_browser`);
    await page.locator("#lobby-problem").getByText("Put https:// before the address").waitFor();
    await page.getByRole("button", { name: "Join" }).click();
    await page.getByRole("heading", { name: "This page cannot carry a call" }).waitFor();
    await page.locator("#closed-you").getByText("Put https:// before the address").waitFor();
    assert.deepEqual(errors, []);
    await context.close();
    await plain.close();
  });
});
