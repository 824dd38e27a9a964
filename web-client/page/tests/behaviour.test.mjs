// How the page behaves, with an invented room in place of a gateway: switches, keys, layout, devices, and what goes wrong.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accessible, endAll, inState, launch, open, shot } from "./harness.mjs";
import { call, inCallOf, press, settled, startInvented } from "./states.mjs";

let browser;
let base;

before(async () => {
  ({ browser, base } = await startInvented());
});

after(endAll);

const inCall = (people, options, run) => inCallOf({ base, browser }, people, options, run);

describe("lobby", () => {
  test("the stable names are there, and joining leads into the call", async () => {
    const { context, page, errors } = await open(browser);
    await page.goto(`${base}/`);
    await page.getByRole("textbox", { name: "Your name" }).fill("Mia");
    await page.getByRole("textbox", { name: "Room" }).fill("tea-time");
    await page.getByRole("button", { name: "Join" }).click();
    await inState(page, "call");
    for (const name of ["Leave", "Mute", "Camera"]) assert.equal(await page.getByRole("button", { name }).count(), 1, name);
    assert.equal(new URL(page.url()).pathname, "/tea-time");
    assert.match(await page.title(), /^tea-time/u);
    await page.reload();
    await inState(page, "lobby");
    assert.equal(await page.getByRole("textbox", { name: "Your name" }).inputValue(), "Mia", "the name is remembered");
    assert.equal(await page.getByRole("textbox", { name: "Room" }).inputValue(), "tea-time");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("without any device the page says so and joins all the same", async () => {
    const bare = await launch({ devices: false });
    const { context, page, errors } = await open(bare);
    await page.goto(`${base}/standup?name=Mia`);
    await page.getByText("No microphone and no camera found.").waitFor();
    await accessible(page, "no devices");
    await shot(page, "lobby-no-devices-desktop-light");
    await page.getByRole("button", { name: "Join" }).click();
    await inState(page, "call");
    assert.equal(await page.getByRole("button", { name: "Mute" }).getAttribute("aria-pressed"), "true");
    assert.deepEqual(errors, []);
    await context.close();
    const second = await open(bare);
    await second.page.goto(base + call("&people=2"));
    await inState(second.page, "call");
    assert.deepEqual(second.errors, []);
    await bare.close();
  });

  test("a refused permission is told in words", async () => {
    const { context, page, errors } = await open(browser);
    await context.addInitScript(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"));
    });
    await page.goto(`${base}/standup?name=Mia`);
    await page.getByText("The browser does not let this page use your microphone and camera.").waitFor();
    await accessible(page, "permission refused");
    await shot(page, "lobby-refused-desktop-light");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("joining muted and without picture is respected and remembered", async () => {
    const { context, page, errors } = await open(browser);
    await page.goto(`${base}/standup?name=Mia`);
    await page.waitForSelector('#preview-frame[data-camera="on"]');
    await page.getByRole("switch", { name: "Microphone" }).click();
    await page.getByRole("switch", { name: "Video" }).click();
    await page.getByText("Your camera is off").waitFor();
    await page.reload();
    await page.getByText("Your camera is off").waitFor();
    await page.getByRole("button", { name: "Join" }).click();
    await inState(page, "call");
    await page.waitForFunction(() => globalThis.room.local.publications.length === 1 && globalThis.room.local.publications[0].muted);
    assert.equal(await page.getByRole("button", { name: "Mute" }).getAttribute("aria-pressed"), "true");
    assert.equal(await page.getByRole("button", { name: "Camera" }).getAttribute("aria-pressed"), "false");
    assert.deepEqual(errors, []);
    await context.close();
  });
});

describe("in the call", () => {
  test("m, v and the space bar do what they say, Escape closes panels", () =>
    inCall(3, {}, async (page) => {
      const pressed = (name) => page.getByRole("button", { name, exact: true }).getAttribute("aria-pressed");
      const live = () => page.evaluate(() => !globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      await page.waitForFunction(() => globalThis.room.local.publications.length === 2);
      await page.keyboard.press("m");
      await page.waitForFunction(() => globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      assert.equal(await pressed("Mute"), "true");
      await page.keyboard.down("Space");
      await page.waitForFunction(() => !globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      assert.equal(await page.locator("#talking").isVisible(), true);
      await page.keyboard.up("Space");
      await page.waitForFunction(() => globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      await page.keyboard.press("m");
      await page.waitForFunction(() => !globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      await page.keyboard.press("Space");
      assert.equal(await live(), true, "space means nothing while not muted");
      await page.keyboard.press("v");
      await page.waitForFunction(() => document.querySelector("#camera").getAttribute("aria-pressed") === "false");
      await page.keyboard.press("v");
      await page.waitForFunction(() => document.querySelector("#camera").getAttribute("aria-pressed") === "true");
      await page.getByRole("button", { name: "People" }).click();
      assert.equal(await page.locator("#panel").isVisible(), true);
      await page.keyboard.press("Escape");
      assert.equal(await page.locator("#panel").isVisible(), false);
      assert.equal(await page.evaluate(() => document.activeElement?.id), "show-people", "focus returns to the opener");
    }));

  test("by the keyboard alone: one stop at the tiles, arrows between them, and on to the switches", () =>
    inCall(9, {}, async (page) => {
      const focused = () => page.evaluate(() => document.activeElement.closest(".tile")?.dataset.participant ?? document.activeElement.id);
      await page.waitForFunction(() => document.activeElement.id === "call");
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "2");
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowDown");
      assert.equal(await focused(), "4");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.querySelector('.tile[data-participant="4"]').hasAttribute("data-large"));
      assert.equal(await focused(), "4", "the focus stays where it is");
      await page.keyboard.press("Escape");
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "mute");
      await page.keyboard.press("Shift+Tab");
      assert.equal(await focused(), "4", "and Tab comes back to the same tile");
      const reached = [];
      for (let at = ""; at !== "full-screen"; reached.push(at)) {
        await page.keyboard.press("Tab");
        at = await focused();
        assert.ok(reached.length < 12, reached.join(" "));
      }
      assert.deepEqual(reached, ["mute", "camera", "screen", "leave", "show-people", "speaker-view", "show-stats", "show-settings", "full-screen"]);
    }));

  test("tiles carry the participant's id and a picture labelled with the alias", () =>
    inCall(3, {}, async (page) => {
      const remote = page.locator('.tile[data-participant="2"]');
      assert.equal(await remote.locator("canvas").getAttribute("aria-label"), "Ana Lima");
      assert.equal(await remote.locator("canvas").evaluate(({ width, height }) => `${width}x${height}`), "640x360");
      const own = page.locator('.tile[data-local]');
      assert.equal(await own.count(), 1);
      assert.equal(await own.locator("video").getAttribute("aria-label"), "Mia");
    }));

  test("joins and leaves are announced and change the title", () =>
    inCall(2, {}, async (page) => {
      const announced = (text) => page.locator("#announcer").getByText(text, { exact: true }).waitFor({ state: "attached" });
      await page.evaluate(() => globalThis.room.add(3));
      await announced("Ben joined");
      assert.match(await page.title(), /\(3\)/u);
      await page.evaluate(() => globalThis.room.removePerson(3));
      await announced("Ben left");
      assert.equal(await page.locator('.tile[data-participant="3"]').count(), 0);
      await page.evaluate(() => globalThis.room.removePerson(2));
      await page.getByRole("heading", { name: "You are alone here" }).waitFor();
    }));

  test("“Show me” makes a tile large, and again gives the grid back", () =>
    inCall(5, { more: "&quiet=1" }, async (page) => {
      const tile = page.locator('.tile[data-participant="4"]');
      const width = () => tile.evaluate((element) => element.getBoundingClientRect().width);
      const before = await width();
      await tile.hover();
      await tile.getByRole("button", { name: "Show me" }).click();
      await page.waitForFunction(() => document.querySelector('.tile[data-participant="4"]').hasAttribute("data-large"));
      await settled(page);
      assert.ok((await width()) > before * 1.5);
      await page.keyboard.press("Escape");
      await settled(page);
      assert.equal(await width(), before);
    }));

  test("tiles never overlap, stay inside and use the space, from 1 to 25, on both sizes", async () => {
    for (const size of ["desktop", "phone"]) {
      await inCall(1, { size, more: "&quiet=1" }, async (page) => {
        for (let people = 2; people <= 25; people += 1) {
          await page.evaluate((id) => globalThis.room.add(id, { video: false }), people);
          if (people < 3) continue;
          await settled(page);
          const trouble = await page.evaluate(() => {
            const area = document.querySelector("#tiles").getBoundingClientRect();
            const boxes = [...document.querySelectorAll(".tile")].map((tile) => tile.getBoundingClientRect());
            const used = boxes.reduce((sum, { width, height }) => sum + width * height, 0) / (area.width * area.height);
            return used < 0.5 || boxes.some(
              (a, index) =>
                a.left < area.left - 1 || a.right > area.right + 1 || a.top < area.top - 1 || a.bottom > area.bottom + 1 || a.width < 60 ||
                boxes.some((b, other) => other > index && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom),
            );
          });
          assert.equal(trouble, false, `${people} tiles, ${size}`);
        }
      });
    }
  });

  test("tiles without a place are not asked for", () =>
    inCall(25, { size: "phone" }, async (page) => {
      await page.evaluate(() => document.querySelector('.tile[data-participant="4"] .pin').click());
      await page.waitForSelector(".tile[data-out]", { state: "attached" });
      await settled(page);
      const { hidden, out } = await page.evaluate(() => ({
        hidden: [...globalThis.room.participants.values()].flatMap(({ tracks }) => tracks).filter(({ visible }) => visible === false).length,
        out: document.querySelectorAll(".tile[data-out] canvas").length,
      }));
      assert.ok(out > 0);
      assert.equal(hidden, out);
    }));

  test("the link is copied, the figures are copied", () =>
    inCall(2, {}, async (page) => {
      await press(page, "show-people");
      await page.locator("#panel").getByRole("button", { name: "Copy link" }).click();
      await page.locator("#panel [data-copied]").getByText("Link copied").waitFor();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `${base}/standup`);
      await press(page, "show-stats");
      await page.getByRole("button", { name: "Copy as JSON" }).click();
      await page.locator("#copy-stats[data-copied]").getByText("Copied").waitFor();
      const report = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
      assert.equal(report.transport, "websocket");
      assert.equal(report.sources.length, 2);
    }));

  test("a device that goes away is told in words, and its replacement taken", () =>
    inCall(2, {}, async (page) => {
      await page.waitForFunction(() => globalThis.room.local.publications.length === 2);
      await page.evaluate(() => {
        const { track } = globalThis.room.local.publications.find(({ kind }) => kind === "audio");
        globalThis.lostTrack = track;
        // What the browser does when a device is pulled.
        track.stop();
        track.dispatchEvent(new Event("ended"));
      });
      await page.locator("#toasts").getByText("was unplugged. Now using").waitFor();
      await page.waitForFunction(() => globalThis.room.local.publications.find(({ kind }) => kind === "audio").track !== globalThis.lostTrack);
    }));

  test("a screen is shared as a track and tile of its own", () =>
    inCall(2, {}, async (page) => {
      await page.evaluate(() => {
        navigator.mediaDevices.getDisplayMedia = () => {
          const canvas = document.createElement("canvas");
          canvas.width = 1280;
          canvas.height = 720;
          canvas.getContext("2d").fillRect(0, 0, 9, 9);
          return Promise.resolve(canvas.captureStream(5));
        };
      });
      await page.getByRole("button", { name: "Screen", exact: true }).click();
      await page.locator('.tile[data-local][data-source="screen"] video').waitFor();
      assert.equal(await page.evaluate(() => globalThis.room.local.publications.some(({ source }) => source === "screen")), true);
      await page.getByRole("button", { name: "Screen", exact: true }).click();
      await page.waitForFunction(() => !document.querySelector('.tile[data-source="screen"]'));
    }));
});

describe("when things go wrong", () => {
  for (const [code, title] of [
    ["room_full", "The room is full"],
    ["unauthorized", "This gateway asks for a token"],
    ["connect_failed", "The gateway cannot be reached"],
    ["unsupported_browser", "This browser cannot join"],
    ["bad_name", "That name cannot be used"],
    ["something_new", "Joining did not work"],
  ]) {
    test(`${code} is told in words, with a way on`, async () => {
      const { context, page, errors } = await open(browser);
      await page.goto(base + call(`&refuse=${code}`));
      await page.getByRole("heading", { name: title }).waitFor();
      await page.getByRole("button", { name: "Back to the start" }).click();
      await inState(page, "lobby");
      assert.deepEqual(errors, []);
      await context.close();
    });
  }

  test("after the end everything is released, and “Join again” comes back", () =>
    inCall(2, {}, async (page) => {
      await page.waitForFunction(() => globalThis.room.local.publications.length === 2);
      const tracks = await page.evaluateHandle(() => globalThis.room.local.publications.map(({ track }) => track));
      await page.getByRole("button", { name: "Leave" }).click();
      await inState(page, "ended");
      assert.equal(await tracks.evaluate((all) => all.every(({ readyState }) => readyState === "ended")), true);
      await page.getByRole("button", { name: "Join again" }).click();
      await inState(page, "call");
      await page.waitForFunction(() => globalThis.room.local.publications.length === 2);
    }));

  test("a full room is tried again by itself, in place, without a light that goes on; when there is room the call begins", async () => {
    const { context, page } = await open(browser);
    await context.addInitScript(() => {
      const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      globalThis.opens = 0;
      navigator.mediaDevices.getUserMedia = (constraints) => {
        globalThis.opens += 1;
        return original(constraints);
      };
    });
    await page.clock.install();
    await page.goto(base + call("&refuse=room_full"));
    await page.clock.runFor(500);
    await inState(page, "refused");
    await page.getByText(/This page tries again in \d+ s\./u).waitFor();
    const tries = () => page.evaluate(() => globalThis.asked.length);
    assert.equal(await tries(), 1);
    const opens = await page.evaluate(() => globalThis.opens);
    await page.getByRole("button", { name: "Back to the start" }).focus();
    await page.evaluate(() => {
      globalThis.states = [];
      new MutationObserver(() => globalThis.states.push(document.body.dataset.state)).observe(document.body, { attributeFilter: ["data-state"] });
    });
    await page.clock.runFor(10_500);
    await page.getByText(/This page tries again in \d+ s\./u).waitFor();
    assert.equal(await tries(), 2);
    assert.equal(await page.evaluate(() => document.activeElement.id), "to-lobby", "the focus stays");
    assert.deepEqual(await page.evaluate(() => globalThis.states), [], "no screen came and went");
    assert.equal(await page.evaluate(() => globalThis.opens), opens, "no device was asked for");
    await page.evaluate(() => (globalThis.refuse = null));
    await page.clock.runFor(11_000);
    await inState(page, "call");
    assert.equal(await tries(), 3);
    await page.waitForFunction(() => globalThis.room.local.publications.length === 2, undefined, { polling: 100 });
    await context.close();
  });

  test("a connection that comes back gives the call back", () =>
    inCall(3, {}, async (page) => {
      await page.evaluate(() => globalThis.room.setState("reconnecting"));
      await inState(page, "reconnecting");
      await page.locator("#banner").getByText("Connection lost.").waitFor();
      await page.evaluate(() => globalThis.room.setState("connected"));
      await inState(page, "call");
      assert.equal(await page.locator("#banner").isVisible(), false);
    }));

  test("cancelling an attempt leads back to the lobby", async () => {
    const { context, page, errors } = await open(browser);
    await page.goto(base + call("&slow=1"));
    await inState(page, "connecting");
    await page.getByRole("button", { name: "Cancel" }).click();
    await inState(page, "lobby");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("reduced motion stops what moves by itself", async () => {
    const { context, page } = await open(browser);
    await page.emulateMedia({ reducedMotion: "reduce" });
    await page.goto(base + call("&people=3"));
    await inState(page, "call");
    const moving = await page.evaluate(() => [...document.querySelectorAll(".tile")].some((tile) => getComputedStyle(tile).transitionDuration.split(", ").some((time) => parseFloat(time) > 0)));
    assert.equal(moving, false);
    await context.close();
  });
});
