// Every state of the page in Firefox, on a desk or a phone, in light or in dark: that it is reached, that axe finds nothing, that the console
// stays silent. What the page does in each state is tested in Chromium.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { firefox } from "../../smoke/browsers.js";
import { accessible, endAll, onExit, shot, SIZES } from "./harness.mjs";
import { serveInvented, settled, STATES } from "./states.mjs";

/** Firefox takes its scheme from its settings, so there is one for each. */
const SCHEMES = { light: 1, dark: 0 };

const inState = (page, state) => page.waitForFunction((wanted) => document.body.dataset.state === wanted, { timeout: 30_000, polling: 50 }, state);

describe("every state in Firefox", () => {
  const browsers = {};
  let base;

  before(async () => {
    base = await serveInvented();
    for (const [scheme, value] of Object.entries(SCHEMES)) {
      const { browser } = await firefox({ "layout.css.prefers-color-scheme.content-override": value });
      onExit(() => browser.close());
      browsers[scheme] = browser;
    }
    // The first visit makes Vite bundle what it has to; the page may be loaded twice then.
    const page = await browsers.light.newPage();
    await page.goto(`${base}/warm?name=Mia&autojoin=1`);
    await inState(page, "call");
    await page.waitForSelector("#alone .qr svg");
    await page.close();
  });

  after(endAll);

  // Turn and turn about: each state once, half of them in each scheme, and half of those on a phone.
  for (const [index, [name, [path, state, then, first]]] of Object.entries(STATES).entries()) {
    const scheme = index % 2 ? "dark" : "light";
    // Only a phone's bar has a menu.
    const size = name === "menu" || index % 4 > 1 ? "phone" : "desktop";
    test(`${name}, ${size}, ${scheme}`, async () => {
      const context = await browsers[scheme].createBrowserContext();
      const page = await context.newPage();
      const errors = [];
      page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
      page.on("pageerror", (error) => errors.push(String(error)));
      await page.setViewport(SIZES[size]);
      await page.goto(base + path);
      if (first) {
        await inState(page, "call");
        await first(page);
      }
      await inState(page, state);
      await settled(page);
      await then?.(page);
      await settled(page);
      assert.equal(await page.evaluate((wanted) => matchMedia(`(prefers-color-scheme: ${wanted})`).matches, scheme), true);
      await shot(page, `firefox-${name}-${size}-${scheme}`);
      await accessible(page, `${name}, ${size}, ${scheme}, Firefox`);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, "the page scrolls sideways");
      assert.deepEqual(errors, []);
      await context.close();
    });
  }
});
