// A call of four for half an hour: does memory stay flat? `WZP_GATEWAY=path npm run soak -- [minutes] [webrtc|websocket|both]`
// Not a test of `make test`: it takes as long as it says. `both`: two pages each way, in one room.
import { readFileSync } from "node:fs";
import { endAll, inState, launch, open } from "../page/tests/harness.mjs";
import { startGateway } from "../page/tests/gateway.mjs";

const minutes = Number(process.argv[2] ?? 30);
const way = process.argv[3] ?? "both";
const WAYS = { webrtc: ["webrtc", "webrtc", "webrtc", "webrtc"], websocket: ["ws", "ws", "ws", "ws"], both: ["webrtc", "ws", "webrtc", "ws"] };
const NAMES = ["Ana", "Ben", "Caro", "Dan"];
/** Caches fill and buffers find their size in this part of the time; growth is counted from there on. */
const WARM = 1 / 6;
/** What may be more at the end than after the warm-up, and still count as flat: noise of the measurement, and growth that a day would not notice. */
const LIMITS = { heap: 1.5, nodes: 40, listeners: 10, renderers: 60, gateway: 12 };

const rss = (pid) => Number(/VmRSS:\s+(\d+)/u.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];

const gateway = await startGateway();
const browser = await launch();
const processes = await browser.newBrowserCDPSession();
const pages = [];
try {
  for (const [index, name] of NAMES.entries()) {
    const { page, errors } = await open(browser);
    // Small pictures: what is looked for is what piles up, and machines that do this have other things to do.
    await page.addInitScript(() => {
      const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = (wanted) => original({ ...wanted, video: wanted.video && { width: 320, height: 180, frameRate: 15 } });
    });
    await page.goto(`${gateway.base}/soak?name=${name}&autojoin=1&transport=${WAYS[way][index]}`);
    await inState(page, "call");
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    pages.push({ name, way: WAYS[way][index], page, errors, session, decoded: 0 });
  }
  // Panels that are refilled every second are where pages leak.
  await pages[0].page.getByRole("button", { name: "Stats" }).click();
  await pages[1].page.getByRole("button", { name: "Stats" }).click();
  await pages[2].page.getByRole("button", { name: "People" }).click();

  const rows = [];
  console.log(`minute | ${pages.map(({ name, way: each }) => `${name} (${each}): heap MB, nodes, listeners, pictures`).join(" | ")} | renderers MB | gateway MB`);
  for (let minute = 0; minute <= minutes; minute += 1) {
    await pages[0].page.waitForTimeout(minute === 0 ? 10_000 : 60_000);
    const row = { pages: [] };
    for (const one of pages) {
      await one.session.send("HeapProfiler.collectGarbage");
      const { metrics } = await one.session.send("Performance.getMetrics");
      const metric = (name) => metrics.find((each) => each.name === name)?.value ?? 0;
      const { sources, transport } = await one.page.evaluate(() => window.wzp.stats());
      const decoded = sources.filter(({ kind }) => kind === "video").map(({ framesDecoded }) => framesDecoded);
      if (decoded.length !== 3 || (one.way === "ws") !== (transport === "websocket")) throw new Error(`${one.name} has ${decoded.length} pictures by ${transport}`);
      const total = decoded.reduce((sum, each) => sum + each, 0);
      if (minute > 0 && total <= one.decoded) throw new Error(`${one.name} gets no pictures any more`);
      row.pages.push({ heap: metric("JSHeapUsedSize") / 2 ** 20, nodes: metric("Nodes"), listeners: metric("JSEventListeners"), decoded: total - one.decoded });
      one.decoded = total;
    }
    const { processInfo } = await processes.send("SystemInfo.getProcessInfo");
    row.renderers = processInfo.filter(({ type }) => type === "renderer").reduce((sum, { id }) => sum + rss(id), 0);
    row.gateway = rss(gateway.pid);
    rows.push(row);
    console.log(`${String(minute).padStart(6)} | ${row.pages.map(({ heap, nodes, listeners, decoded }) => `${heap.toFixed(1)}, ${nodes}, ${listeners}, ${decoded}`).join(" | ")} | ${row.renderers.toFixed(0)} | ${row.gateway.toFixed(1)}`);
  }

  // Medians of the third after the warm-up and of the last third: single readings lie.
  const warm = rows.slice(Math.ceil(rows.length * WARM));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const growth = (read) => median(warm.slice(-third).map(read)) - median(warm.slice(0, third).map(read));
  let flat = true;
  const judge = (what, value, limit, unit) => {
    flat &&= value <= limit;
    console.log(`${value <= limit ? "flat" : "GROWS"} ${what}: ${value >= 0 ? "+" : ""}${value.toFixed(1)}${unit} (limit ${limit}${unit})`);
  };
  pages.forEach(({ name, way: each }, index) => {
    for (const [figure, unit] of [["heap", " MB"], ["nodes", ""], ["listeners", ""]]) judge(`${name} by ${each}, ${figure}`, growth((row) => row.pages[index][figure]), LIMITS[figure], unit);
  });
  judge("all renderers", growth((row) => row.renderers), LIMITS.renderers, " MB");
  judge("gateway", growth((row) => row.gateway), LIMITS.gateway, " MB");
  const errors = pages.flatMap(({ errors: each }) => each);
  console.log(`errors in the consoles: ${errors.length ? errors.join("; ") : "none"}`);
  console.log(flat && errors.length === 0 ? `memory is flat over ${minutes} minutes` : "NOT FLAT");
  process.exitCode = flat && errors.length === 0 ? 0 : 1;
} finally {
  await endAll();
}
