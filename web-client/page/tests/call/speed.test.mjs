// What a call costs the main thread of its pages: the built page in Chromium against a real gateway, whose binary WZP_GATEWAY names.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BINARY, enter as join, startGateway } from "../gateway.mjs";
import { endAll, launch, shot } from "../harness.mjs";
import { mainThreadTasks, traceMainThreads } from "../main-thread.mjs";

describe("the main thread", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
  let gateway;
  let browser;

  before(async () => {
    gateway = await startGateway();
    browser = await launch();
  });

  after(endAll);

  for (const [way, more] of [["WebRTC", ""], ["WebSocket", "&transport=ws"]]) {
    test(`a call of four by ${way} never takes up a main thread for 50 ms`, { timeout: 120_000 }, async () => {
      // From the first byte of the page on: loading, joining, everybody's joining, first pictures, layout, panels and figures, a leave.
      await traceMainThreads(browser);
      const visits = {};
      for (const name of ["Ana", "Ben", "Caro", "Dan"]) visits[name] = await join(gateway, browser, name, `four-${way}`, more);
      const { page } = visits.Ana;
      await page.waitForFunction(`window.wzp.stats().then((s) => s.sources.filter((x) => x.kind === "video" && x.framesDecoded > 10).length === 3)`, undefined, { timeout: 40_000, polling: 200 });
      await page.waitForTimeout(1000);
      if (way === "WebRTC") await shot(page, "gateway-four-desktop-light");
      await page.getByRole("button", { name: "Stats" }).click();
      await page.waitForTimeout(2000);
      await page.getByRole("button", { name: "People" }).click();
      await page.getByRole("button", { name: "Speaker view" }).click();
      await visits.Dan.page.getByRole("button", { name: "Leave" }).click();
      await page.locator(".tile").nth(3).waitFor({ state: "detached" });
      const tasks = await mainThreadTasks(browser, Object.fromEntries(Object.entries(visits).map(([name, visit]) => [name, visit.page])));
      const words = ({ cpu, wall, at, what }) => `${cpu.toFixed(1)} ms (${wall.toFixed(0)} ms by the clock, at ${(at / 1000).toFixed(1)} s${what && `: ${what}`})`;
      for (const [name, list] of Object.entries(tasks)) console.log(`main thread of ${name} by ${way}, ${list.length} tasks; longest: ${list.slice(0, 3).map(words).join("; ")}`);
      for (const [name, list] of Object.entries(tasks)) {
        assert.ok(list.length > 500, `${list.length} tasks of ${name} traced`);
        // Time of the thread itself: what others do on the same machine is not the page's fault.
        assert.deepEqual(list.filter(({ cpu }) => cpu > 50).map(words), [], `tasks of ${name} over 50 ms`);
        if (process.env.WZP_STRICT_SPEED) assert.deepEqual(list.filter(({ wall }) => wall > 50).map(words), [], `tasks of ${name} over 50 ms by the clock`);
      }
      assert.deepEqual(Object.values(visits).flatMap(({ errors }) => errors), []);
      for (const { context } of Object.values(visits)) await context.close();
    });
  }
});
