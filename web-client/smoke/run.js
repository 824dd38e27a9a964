// Drives the built package in a real browser, without a gateway: capture, encode, framing, loop, decode, play. `node smoke/run.js chromium|firefox [seconds of patience] [websocket|auto|fallback]`
import { launch, servePage, until, watch } from "./browsers.js";
import { serveRoom } from "./gateway.js";

const [which = "chromium", seconds = "20", transport = "websocket"] = process.argv.slice(2);
const { server, url } = await servePage();
const room = serveRoom(server, { echo: true, webrtc: transport !== "websocket" });
const { page, browser } = await launch(which);
const problems = watch(page);
let failed = false;
const check = (name, passed, detail = "") => {
  failed ||= !passed;
  console.log(`${passed ? "ok  " : "FAIL"} ${name} ${detail}`);
};
try {
  await page.goto(url);
  await page.waitForFunction(() => "smoke" in window);
  // `fallback`: the gateway promises WebRTC and then does not answer.
  if (transport === "auto") await page.evaluate(() => window.smoke.mirror());
  await page.evaluate((options) => window.smoke.start(options), { transport: transport === "websocket" ? transport : "auto" });
  const of = (stats, kind) => stats.sources.find((source) => source.kind === kind);
  const arrived = (stats) =>
    of(stats, "video")?.framesDecoded > 30 && Math.abs((of(stats, "audio")?.dominantHz ?? 0) - 440) < 2 &&
    (transport !== "auto" || (stats.transport === "webrtc" && stats.sending.every((one) => one.bitrate > 0))) && (transport !== "fallback" || /in time/.test(stats.transportReason));
  // Whatever does not come in time is told by the checks below, with its figures.
  const patience = 1000 * Number(seconds);
  const inTime = (test) => until(test, patience, "").catch(() => undefined);
  await inTime(async () => arrived(await page.evaluate(() => window.room.stats())));
  const before = await page.evaluate(() => window.smoke.pixels());
  let after = before;
  await inTime(async () => (after = await page.evaluate(() => window.smoke.pixels())).some((value, i) => Math.abs(value - before[i]) > 8));
  const stats = await page.evaluate(() => window.room.stats());
  const events = await page.evaluate(() => window.smoke.events);
  const video = stats.sources.find((source) => source.kind === "video");
  const audio = stats.sources.find((source) => source.kind === "audio");
  check("the picture moves", before.some((value, i) => Math.abs(value - after[i]) > 8), `${before} -> ${after}`);
  check("the tone is heard", Math.abs((audio?.dominantHz ?? 0) - 440) < 2, `${audio?.dominantHz} Hz, level ${audio?.audioLevel}`);
  check("nothing is lost", video?.lost === 0 && audio?.lost === 0, `${video?.lost} and ${audio?.lost}`);
  check("the picture is sized as decoded", transport !== "auto" ? video?.width === 640 && video?.height === 360 : Math.abs(video?.width / video?.height - 16 / 9) < 0.05, `${video?.width}x${video?.height}`);
  if (transport === "fallback") check("the WebSocket goes on carrying media", stats.transport === "websocket" && /in time/.test(stats.transportReason), stats.transportReason);
  if (transport === "auto") check("media goes by WebRTC", stats.transport === "webrtc" && stats.sending.every((one) => one.bitrate > 0), stats.transportReason);
  check("no errors in the console", problems.length === 0, problems.join(" | "));
  console.log(JSON.stringify({ stats, events }, null, 1));
  await page.goto("about:blank");
  const last = () => room.log.slice(-2).map(([, message]) => message);
  const goodbye = () => last().some((message) => message.type === "closed" && [1000, 1001].includes(message.code));
  await inTime(goodbye);
  check("closing the page is a goodbye", goodbye(), JSON.stringify(last()));
} finally {
  await browser.close();
  server.close();
}
process.exit(failed ? 1 : 0);
