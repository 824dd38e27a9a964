// Every state of the page with an invented room in place of a gateway: that it is reached, that axe finds nothing, that the console
// stays silent; with a picture of each in light and dark, on a phone and on a desk.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accessible, endAll, inState, open, shot } from "./harness.mjs";
import { settled, startInvented, STATES } from "./states.mjs";

let browser;
let base;

before(async () => {
  ({ browser, base } = await startInvented());
});

after(endAll);

describe("every state, in both schemes and sizes", () => {
  for (const [name, [path, state, then, first]] of Object.entries(STATES)) {
    for (const size of ["desktop", "phone"]) {
      test(`${name}, ${size}`, async () => {
        const { context, page, errors } = await open(browser, { size });
        await page.goto(base + path);
        if (first) {
          await inState(page, "call");
          await first(page);
        }
        await inState(page, state);
        await settled(page);
        await then?.(page);
        for (const scheme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme: scheme });
          await settled(page);
          await shot(page, `${name}-${size}-${scheme}`);
          await accessible(page, `${name}, ${scheme}`);
        }
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.equal(wide, false, "the page scrolls sideways");
        assert.deepEqual(errors, []);
        await context.close();
      });
    }
  }
});
