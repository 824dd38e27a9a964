// What a call costs the main thread of its page: the built page in Chromium against a real gateway, whose binary WZP_GATEWAY names. The
// others are native members, whose pictures are files: four pages would judge whether this machine can be four machines.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { BINARY, enter, joinNative, startGateway } from "../gateway.mjs";
import { endAll, inState, launch, onExit, shot } from "../harness.mjs";
import { mainThreadTasks, traceMainThreads } from "../main-thread.mjs";

/** Moving pictures that differ at a glance. Small ones: they are decoded elsewhere, and this machine has no graphics card to show them with. */
const COLOURS = { Ben: "0b6b53:c1=9ad0ff", Caro: "75409b:c1=ffd9a0", Dan: "a83c30:c1=f4e7c3" };
/** What no task may take, ms of CPU. */
const LONG = 50;
/** So many calls are held at most until one is without a long task: neighbours on a machine make the same work take twice the time now and then. */
const CALLS = 3;
const SHOWN = `window.wzp.stats().then((s) => s.sources.filter((x) => x.kind === "video" && x.framesDecoded > 10).length === 3)`;

describe("the main thread", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
  let gateway;
  let browser;
  let folder;

  before(async () => {
    folder = mkdtempSync(path(tmpdir(), "wzp-speed-"));
    onExit(() => rmSync(folder, { recursive: true, force: true }));
    for (const [name, colours] of Object.entries(COLOURS)) {
      const source = `gradients=s=320x180:r=15:n=2:speed=0.03:c0=${colours}`;
      const code = ["-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-preset", "veryfast", "-bf", "0", "-g", "30", "-b:v", "200k"];
      execFileSync("ffmpeg", ["-loglevel", "error", "-f", "lavfi", "-i", source, "-t", "4", ...code, "-f", "h264", path(folder, `${name}.h264`)]);
    }
    gateway = await startGateway();
    browser = await launch({ fps: 10 });
  });

  after(endAll);

  /** One such call. Answers with the tasks of its page, longest first. */
  async function call(room, more) {
    // From the first byte of the page on: loading, joining, everybody's joining, first pictures, layout, panels and figures, a leave, and
    // joining a call that is under way.
    await traceMainThreads(browser);
    const { page, context, errors } = await enter(gateway, browser, "Ana", room, more);
    const native = (name, index) => joinNative(gateway, name, room, 300 + 100 * index, path(folder, `${name}.h264`));
    const natives = Object.keys(COLOURS).map(native);
    await page.waitForFunction(SHOWN, undefined, { timeout: 40_000, polling: 200 });
    await page.locator(".toast").first().waitFor({ state: "detached" });
    if (!more) await shot(page, "gateway-four-desktop-light");
    await page.getByRole("button", { name: "Stats" }).click();
    await page.waitForTimeout(2000);
    await page.getByRole("button", { name: "People" }).click();
    await page.getByRole("button", { name: "Speaker view" }).click();
    natives[2].leave();
    await page.locator(".tile").nth(3).waitFor({ state: "detached" });
    natives[2] = native("Dan", 2);
    await page.getByRole("button", { name: "Leave" }).click();
    await inState(page, "ended");
    await page.getByRole("button", { name: "Join again" }).click();
    await inState(page, "call");
    await page.waitForFunction(SHOWN, undefined, { timeout: 40_000, polling: 200 });
    const { Ana: tasks } = await mainThreadTasks(browser, { Ana: page });
    for (const { leave } of natives) leave();
    await context.close();
    assert.ok(tasks.length > 500, `${tasks.length} tasks traced`);
    assert.deepEqual(errors, []);
    return tasks;
  }

  for (const [way, more] of [["WebRTC", ""], ["WebSocket", "&transport=ws"]]) {
    test(`a call of four by ${way} never takes up the main thread for 50 ms`, { timeout: 400_000 }, async () => {
      // Time of the thread itself: what others do on the same machine is not the page's fault. They make its work slower, too, now here,
      // now there; what the page does too long, it does in every call.
      const words = ({ cpu, wall, at, what }) => `${cpu.toFixed(1)} ms (${wall.toFixed(0)} ms by the clock, at ${(at / 1000).toFixed(1)} s${what && `: ${what}`})`;
      let over = [];
      for (let attempt = 1; attempt <= CALLS; attempt += 1) {
        const tasks = await call(`team-${way === "WebRTC" ? attempt : `ws-${attempt}`}`, more);
        console.log(`main thread by ${way}, call ${attempt}, ${tasks.length} tasks; longest: ${tasks.slice(0, 3).map(words).join("; ")}`);
        over = tasks.filter(({ cpu }) => cpu > LONG).map(words);
        if (over.length === 0) break;
      }
      assert.deepEqual(over, [], `tasks over ${LONG} ms, in each of ${CALLS} calls`);
    });
  }
});
