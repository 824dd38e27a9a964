// A call of four for half an hour: does memory stay flat? `WZP_GATEWAY=path npm run soak -- [minutes] [webrtc|websocket|both]`
// Not a test of `make test`: it takes as long as it says. `both`: two pages each way, in one room.
import { readFileSync } from "node:fs";
import { endAll, inState, launch, open } from "../page/tests/harness.mjs";
import { startGateway } from "../page/tests/gateway.mjs";
import { processes } from "../page/tests/main-thread.mjs";

const minutes = Number(process.argv[2] ?? 30);
const way = process.argv[3] ?? "both";
const WAYS = { webrtc: ["webrtc", "webrtc", "webrtc", "webrtc"], websocket: ["ws", "ws", "ws", "ws"], both: ["webrtc", "ws", "webrtc", "ws"] };
const NAMES = ["Ana", "Ben", "Caro", "Dan"];
/** Caches fill and buffers find their size in this part of the time; growth is counted from there on. */
const WARM = 1 / 6;
/** What may be more at the end than after the warm-up, and still count as flat: noise of the measurement, and growth that a day would not notice. */
const LIMITS = { heap: 1, workers: 1, nodes: 40, listeners: 10, process: 15, gateway: 6 };

const megabytes = (file, field) => Number(new RegExp(`^${field}:\\s+(\\d+)`, "mu").exec(readFileSync(file, "utf8"))?.[1] ?? 0) / 1024;

/** Attaches to the workers of a page. @returns a function that collects their garbage and adds up what they use, MB */
async function workersOf(session) {
  const workers = [];
  const waiting = new Map();
  let last = 0;
  session.on("Target.attachedToTarget", ({ sessionId }) => workers.push(sessionId));
  session.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result } = JSON.parse(message);
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  const ask = (sessionId, method) => {
    const id = (last += 1);
    const answer = new Promise((resolve) => waiting.set(id, resolve));
    return session.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method }) }).then(() => answer);
  };
  return async () => {
    let sum = 0;
    for (const worker of workers) {
      await ask(worker, "HeapProfiler.collectGarbage");
      sum += (await ask(worker, "Runtime.getHeapUsage")).usedSize;
    }
    return sum / 2 ** 20;
  };
}

/** How many pictures a page has decoded, which have to be more than the last time. A worker that is busy may leave out its answer, so it is asked again. */
async function picturesOf(one) {
  for (let tries = 0; ; tries += 1) {
    const { sources, transport } = await one.page.evaluate(() => window.wzp.stats());
    const decoded = sources.filter(({ kind }) => kind === "video").map(({ framesDecoded }) => framesDecoded);
    const total = decoded.reduce((sum, each) => sum + each, 0);
    if (decoded.length === 3 && total > one.decoded && (one.way === "ws") === (transport === "websocket")) return total;
    if (tries === 20) throw new Error(`${one.name} has decoded ${decoded.join(", ")} pictures by ${transport}, and ${one.decoded} in all a minute ago`);
    await one.page.waitForTimeout(1000);
  }
}

const gateway = await startGateway();
const browser = await launch();
const pages = [];
try {
  for (const [index, name] of NAMES.entries()) {
    const { page, errors } = await open(browser);
    // Small pictures: what is looked for is what piles up, and machines that do this have other things to do.
    await page.addInitScript(() => {
      const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = (wanted) => original({ ...wanted, video: wanted.video && { width: 320, height: 180, frameRate: 15 } });
    });
    page.setDefaultTimeout(120_000);
    await page.goto(`${gateway.base}/soak?name=${name}&autojoin=1&transport=${WAYS[way][index]}`);
    await inState(page, "call");
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    pages.push({ name, way: WAYS[way][index], page, errors, session, workers: await workersOf(session), decoded: 0 });
  }
  const pids = await processes(browser, Object.fromEntries(pages.map(({ name, page }) => [name, page])));
  // Panels that are refilled every second are where pages leak.
  await pages[0].page.getByRole("button", { name: "Stats" }).click();
  await pages[1].page.getByRole("button", { name: "Stats" }).click();
  await pages[2].page.getByRole("button", { name: "People" }).click();

  const rows = [];
  console.log("Of each page: heap of the page and of its workers, MB, after garbage collection; DOM nodes; listeners; its process, MB (PSS); pictures decoded.");
  console.log(`minute | ${pages.map(({ name, way: each }) => `${name} (${each})`).join(" | ")} | gateway, MB (RSS)`);
  for (let minute = 0; minute <= minutes; minute += 1) {
    await pages[0].page.waitForTimeout(minute === 0 ? 10_000 : 60_000);
    const row = { pages: [] };
    for (const one of pages) {
      await one.session.send("HeapProfiler.collectGarbage");
      const { metrics } = await one.session.send("Performance.getMetrics");
      const metric = (name) => metrics.find((each) => each.name === name)?.value ?? 0;
      const total = await picturesOf(one);
      row.pages.push({
        heap: metric("JSHeapUsedSize") / 2 ** 20, workers: await one.workers(), nodes: metric("Nodes"), listeners: metric("JSEventListeners"),
        process: megabytes(`/proc/${pids[one.name]}/smaps_rollup`, "Pss"), decoded: total - one.decoded,
      });
      one.decoded = total;
    }
    row.gateway = megabytes(`/proc/${gateway.pid}/status`, "VmRSS");
    rows.push(row);
    console.log(`${String(minute).padStart(6)} | ${row.pages.map((each) => `${each.heap.toFixed(1)} ${each.workers.toFixed(1)} ${each.nodes} ${each.listeners} ${each.process.toFixed(0)} ${each.decoded}`).join(" | ")} | ${row.gateway.toFixed(1)}`);
  }

  // The least of the third after the warm-up, and of the last third: memory is a saw, whose teeth are rubbish not yet collected.
  const warm = rows.slice(Math.ceil(rows.length * WARM));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const growth = (read) => Math.min(...warm.slice(-third).map(read)) - Math.min(...warm.slice(0, third).map(read));
  let flat = true;
  const judge = (what, value, limit, unit) => {
    flat &&= value <= limit;
    console.log(`${value <= limit ? "flat" : "GROWS"} ${what}: ${value >= 0 ? "+" : ""}${value.toFixed(1)}${unit} (limit ${limit}${unit})`);
  };
  pages.forEach(({ name, way: each }, index) => {
    for (const [figure, unit] of [["heap", " MB"], ["workers", " MB"], ["nodes", ""], ["listeners", ""], ["process", " MB"]]) judge(`${name} by ${each}, ${figure}`, growth((row) => row.pages[index][figure]), LIMITS[figure], unit);
  });
  judge("gateway", growth((row) => row.gateway), LIMITS.gateway, " MB");
  const errors = pages.flatMap(({ errors: each }) => each);
  console.log(`errors in the consoles: ${errors.length ? errors.join("; ") : "none"}`);
  console.log(flat ? `memory is flat over ${minutes} minutes` : "NOT FLAT");
  process.exitCode = flat ? 0 : 1;
} finally {
  await endAll();
}
