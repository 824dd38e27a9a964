// Where the person's attention is led, with an invented room in place of a gateway: the focus, what is read aloud, who is shown large, what stays as it was.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { endAll, inState, open } from "./harness.mjs";
import { call, inCallOf, openMenu, press, settled, startInvented } from "./states.mjs";

let browser;
let base;

before(async () => {
  ({ browser, base } = await startInvented());
});

after(endAll);

const inCall = (people, options, run) => inCallOf({ base, browser }, people, options, run);
const focused = (page) => page.evaluate(() => document.activeElement.closest(".tile")?.dataset.participant ?? document.activeElement.id);
const read = (page, text) => page.locator("#announcer").getByText(text, { exact: true }).waitFor({ state: "attached" });

describe("the focus", () => {
  test("goes to the button of the menu when what was pressed in it is hidden", () =>
    inCall(3, { size: "phone" }, async (page) => {
      for (const id of ["speaker-view", "full-screen"]) {
        await openMenu(page);
        await page.focus(`#${id}`);
        await page.keyboard.press("Enter");
        await page.waitForFunction(() => !document.querySelector("#extras").hasAttribute("data-open"));
        assert.equal(await focused(page), "more", id);
      }
      await page.waitForFunction(() => document.fullscreenElement !== null);
    }));

  test("goes to the next tile when its person leaves, and to the call when nobody is left", () =>
    inCall(4, { more: "&quiet=1" }, async (page) => {
      await page.focus('.tile[data-participant="3"] .pin');
      await page.evaluate(() => globalThis.room.removePerson(3));
      await page.waitForSelector('.tile[data-participant="3"]', { state: "detached" });
      assert.equal(await focused(page), "4");
      await page.evaluate(() => globalThis.room.removePerson(4));
      await page.waitForSelector('.tile[data-participant="4"]', { state: "detached" });
      assert.equal(await focused(page), "1", "the last one left of the others, in the order of the tiles");
      await page.focus('.tile[data-participant="2"] .pin');
      await page.evaluate(() => globalThis.room.removePerson(2));
      await page.waitForSelector('.tile[data-participant="2"]', { state: "detached" });
      assert.equal(await focused(page), "call");
    }));

  test("goes to the call when the card of the lonely or the button for sound disappears", () =>
    inCall(1, {}, async (page) => {
      await page.focus("#alone [data-copy-link]");
      await page.evaluate(() => globalThis.room.add(2));
      await page.locator("#alone").waitFor({ state: "hidden" });
      assert.equal(await focused(page), "call");
      await page.evaluate(() => {
        globalThis.room.audio.blocked = true;
        globalThis.room.fire("audioblocked", true);
      });
      await read(page, "The browser holds the sound back. Press “Tap to hear”.");
      await page.focus("#tap-to-hear");
      await page.keyboard.press("Enter");
      await page.locator("#tap-to-hear").waitFor({ state: "hidden" });
      assert.equal(await focused(page), "call");
    }));
});

describe("what is read aloud", () => {
  test("is every message, also of several at once", () =>
    inCall(2, {}, async (page) => {
      await page.evaluate(() => {
        const { room } = globalThis;
        for (const id of [3, 4, 5]) room.add(id);
        room.fire("notice", { code: "x", message: "Recording has begun." });
        room.fire("error", { fatal: false, message: "That did not work." });
        room.audio.setSink = () => Promise.reject(new Error("no"));
      });
      for (const text of ["Ben joined", "Chidi Okafor joined", "Dora joined", "Recording has begun.", "That did not work."]) await read(page, text);
      const region = page.locator("#announcer");
      assert.deepEqual([await region.getAttribute("aria-live"), await region.getAttribute("aria-atomic")], ["polite", "false"], "each line is read once");
      await press(page, "show-settings");
      await page.locator("#call-audiooutput").dispatchEvent("change");
      await read(page, "The sound could not be moved to that speaker.");
      await page.keyboard.press("Escape");
      await page.evaluate(() => globalThis.room.setState("reconnecting"));
      await read(page, "Connection lost. Coming back by itself as soon as the network does. The others see that you are away.");
      await page.evaluate(() => globalThis.room.setState("connected"));
      await read(page, "You are back in the call.");
    }));
});

describe("single keys", () => {
  test("can be switched off, which is remembered", () =>
    inCall(2, {}, async (page) => {
      const muted = () => page.getByRole("button", { name: "Mute" }).getAttribute("aria-pressed");
      await press(page, "show-settings");
      await page.getByRole("checkbox", { name: "Use the keys m and v" }).uncheck();
      await page.keyboard.press("Escape");
      await page.evaluate(() => document.activeElement.blur());
      await page.keyboard.press("m");
      await page.keyboard.press("v");
      assert.equal(await muted(), "false");
      assert.equal(await page.locator("#mute").getAttribute("aria-keyshortcuts"), null);
      await page.reload();
      await inState(page, "call");
      await press(page, "show-settings");
      const box = page.getByRole("checkbox", { name: "Use the keys m and v" });
      assert.equal(await box.isChecked(), false);
      await box.check();
      await page.keyboard.press("Escape");
      await page.evaluate(() => document.activeElement.blur());
      await page.keyboard.press("m");
      await page.waitForFunction(() => document.querySelector("#mute").getAttribute("aria-pressed") === "true");
    }));
});

describe("who talks", () => {
  const large = (page, id) => page.waitForSelector(`.tile[data-participant="${id}"][data-large]`);

  test("is larger than the others; another one takes the place when the first has been silent for a while", () =>
    inCall(5, { more: "&quiet=1" }, async (page) => {
      assert.equal(await page.locator(".tile[data-large]").count(), 0, "before anybody talks, all are equal");
      await page.evaluate(() => (globalThis.room.talker = 3));
      await large(page, 3);
      await settled(page);
      const [main, ...others] = await page.evaluate(() => [...document.querySelectorAll(".tile")].map((tile) => tile.offsetWidth * tile.offsetHeight).sort((a, b) => b - a));
      assert.equal(others.length, 4);
      assert.ok(main > 3 * others[0], `${main} and ${others}`);
      assert.equal(await page.locator(".tile[data-out]").count(), 0, "the others stay in sight");
      const took = await page.evaluate(async () => {
        const from = performance.now();
        globalThis.room.talker = 2;
        const tile = document.querySelector('.tile[data-participant="2"]');
        while (!tile.hasAttribute("data-large")) await new Promise((resolve) => setTimeout(resolve, 20));
        return performance.now() - from;
      });
      assert.ok(took >= 1500, `${took} ms`);
      await page.evaluate(() => globalThis.room.removePerson(2));
      await page.waitForFunction(() => !document.querySelector(".tile[data-large]"));
      await page.evaluate(() => (globalThis.room.talker = 3));
      await large(page, 3);
      await press(page, "speaker-view");
      await page.waitForFunction(() => !document.querySelector(".tile[data-large]"));
      await page.reload();
      await inState(page, "call");
      assert.equal(await page.locator("#speaker-view").getAttribute("aria-pressed"), "false", "the choice is remembered");
      await press(page, "speaker-view");
      await page.evaluate(() => (globalThis.room.talker = 3));
      await large(page, 3);
    }));

  test("of two is large anyway", () =>
    inCall(2, {}, async (page) => {
      await page.waitForSelector(".tile[data-speaking]");
      assert.equal(await page.locator(".tile[data-floating][data-local]").count(), 1);
    }));
});

describe("what belongs to one call", () => {
  test("does not stand in the next: no tile of the last one, no key that is still held", () =>
    inCall(2, {}, async (page) => {
      await page.waitForFunction(() => globalThis.room.local.publications.length === 2);
      await page.keyboard.press("m");
      await page.waitForFunction(() => globalThis.room.local.publications.find(({ kind }) => kind === "audio").muted);
      await page.keyboard.down("Space");
      await page.locator("#talking").waitFor();
      await page.evaluate(() => globalThis.room.setState("closed", "gateway_gone"));
      await inState(page, "ended");
      await page.keyboard.up("Space");
      await settled(page);
      assert.equal(await page.locator(".tile").count(), 0);
      await page.getByRole("button", { name: "Join again" }).click();
      await inState(page, "call");
      await settled(page);
      assert.equal(await page.locator(".tile").count(), 2);
      assert.equal(await page.locator("#mute[data-talking]").count(), 0);
    }));

  test("but the volume does", () =>
    inCall(2, {}, async (page) => {
      await press(page, "show-settings");
      await page.locator("#volume").fill("30");
      await page.waitForFunction(() => globalThis.room.audio.volume === 0.3);
      await page.evaluate(() => globalThis.room.setState("closed", "gateway_gone"));
      await page.getByRole("button", { name: "Join again" }).click();
      await inState(page, "call");
      assert.equal(await page.evaluate(() => globalThis.room.audio.volume), 0.3);
    }));

  test("a token that was entered is still there on the first page", async () => {
    const { context, page, errors } = await open(browser);
    await page.goto(base + call("&refuse=unauthorized"));
    await page.getByRole("textbox", { name: "Access token" }).fill("open-sesame");
    await page.getByRole("button", { name: "Join again" }).click();
    await page.getByRole("heading", { name: "The token was not accepted" }).waitFor();
    await page.getByRole("button", { name: "Back to the start" }).click();
    await inState(page, "lobby");
    const field = page.getByRole("textbox", { name: "Access token" });
    assert.equal(await field.inputValue(), "open-sesame");
    await field.fill("open-barley");
    await page.getByRole("button", { name: "Join" }).click();
    await page.waitForFunction(() => globalThis.asked.length === 3);
    assert.deepEqual(await page.evaluate(() => globalThis.asked.map(({ token }) => token ?? "none")), ["none", "open-sesame", "open-barley"]);
    assert.deepEqual(errors, []);
    await context.close();
  });
});

describe("figures", () => {
  test("are kept from the call's start, and are those that the room gave", () =>
    inCall(2, { more: "&quiet=1" }, async (page) => {
      await page.evaluate(() => {
        const { room } = globalThis;
        const original = room.stats.bind(room);
        let packets = 0;
        globalThis.readings = 0;
        room.stats = async () => {
          const stats = await original();
          packets += 90;
          globalThis.readings += 1;
          stats.sources = stats.sources.filter(({ kind }) => kind === "video").map((source) => ({ ...source, packets, lost: packets / 9, firstFrameMs: 1234, freezeCount: 7, framesDecoded: packets, framesDropped: packets / 30, width: 640, height: 360 }));
          return stats;
        };
      });
      await page.waitForFunction(() => globalThis.readings >= 4);
      await press(page, "show-stats");
      const points = await page.evaluate(() => [...document.querySelectorAll(".chart polyline")].map((line) => line.getAttribute("points").split(" ").length));
      assert.ok(points.every((count) => count >= 3), `charts of ${points} points at once`);
      const chart = (what) => page.locator(".chart", { hasText: what }).locator(".value");
      await page.waitForFunction(() => [...document.querySelectorAll(".chart")].some((each) => each.textContent.includes("10.0 %")));
      assert.equal(await chart("Loss").first().textContent(), "10.0 %");
      assert.match(await chart("Dropped a second").first().textContent(), /^[1-9]\d*$/u);
      const group = page.locator(".stats-group", { hasText: "Ana Lima" }).first();
      assert.equal(await group.locator('dt:text-is("First picture after") + dd').textContent(), "1.2 s");
      assert.equal(await group.locator('dt:text-is("Freezes") + dd').textContent(), "7");
    }));

  test("of the people list are each one's door, quality and marks, in words", () =>
    inCall(3, { more: "&quiet=1" }, async (page) => {
      await press(page, "show-people");
      const row = (name) => page.locator("#people-list .person", { hasText: name });
      await row("Ana Lima").getByText("Streaming tool, by WHIP").waitFor();
      await row("Ana Lima").getByText("good connection").waitFor({ state: "attached" });
      // Of his sound every tenth packet is lost.
      await row("Ben").getByText("Streaming tool, by RTMP").waitFor();
      await row("Ben").getByText("poor connection").waitFor({ state: "attached" });
      await page.evaluate(() => globalThis.room.change(2, { muted: { audio: true, video: true }, state: "reconnecting" }));
      for (const words of ["Reconnecting…", "muted", "camera off"]) await row("Ana Lima").getByText(words, { exact: true }).waitFor({ state: "attached" });
    }));
});

describe("nothing jumps or overflows", () => {
  for (const path of ["/standup?name=Mia", call("&people=4")]) {
    test(`${path}: no layout shift`, async () => {
      const { context, page, errors } = await open(browser);
      await page.addInitScript(() => {
        globalThis.shifts = [];
        new PerformanceObserver((list) => globalThis.shifts.push(...list.getEntries().map(({ value, sources }) => ({ value, what: sources.map(({ node }) => node?.id || node?.className || node?.nodeName).join() })))).observe({ type: "layout-shift", buffered: true });
      });
      await page.goto(base + path);
      await inState(page, path.includes("autojoin") ? "call" : "lobby");
      if (path.includes("autojoin")) await page.waitForSelector(".tile[data-large]");
      else await page.waitForSelector("#room-people .face");
      await settled(page);
      const shifts = await page.evaluate(() => globalThis.shifts);
      // Google calls less than 0.1 good.
      assert.ok(shifts.reduce((sum, { value }) => sum + value, 0) < 0.05, JSON.stringify(shifts));
      assert.deepEqual(errors, []);
      await context.close();
    });
  }

  for (const size of ["small", "lying"]) {
    test(`on a phone that is ${size}`, async () => {
      const { context, page, errors } = await open(browser, { size });
      const visits = [
        ["/standup?name=Mia", "lobby"],
        [call("&people=4"), "call"],
        [call("&people=4"), "call", "show-people"],
        [call("&people=4"), "call", "show-stats"],
        [call("&people=4"), "call", "show-settings"],
        [call("&refuse=unauthorized"), "refused"],
      ];
      for (const [path, state, button] of visits) {
        await page.goto(base + path);
        await inState(page, state);
        if (button) await press(page, button);
        await settled(page);
        const out = await page.evaluate(() => {
          const wide = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
          // Whatever can be pressed is on the screen, or in something that scrolls.
          const lost = [...document.querySelectorAll("button, input, select")].filter((each) => {
            const { left, right, width } = each.getBoundingClientRect();
            return width > 1 && each.checkVisibility() && (left < -1 || right > innerWidth + 1);
          });
          return [...wide, ...lost.map(({ id, textContent }) => id || textContent)];
        });
        assert.deepEqual(out, [], `${path} ${button ?? ""}`);
      }
      assert.deepEqual(errors, []);
      await context.close();
    });
  }
});
