// Drives the built package in a real browser: capture, encode, framing, loop, decode, play. `node smoke/run.js chromium|firefox [seconds]`
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";
import { serveRoom } from "./gateway.js";

const [which = "chromium", seconds = "5"] = process.argv.slice(2);
const TYPES = { ".js": "text/javascript", ".html": "text/html" };
const CSP = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; media-src 'self' mediastream:";

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://x");
  const path = pathname === "/" ? "./index.html" : pathname.startsWith("/lib/") ? `../dist${pathname}` : `.${pathname}`;
  try {
    const body = await readFile(new URL(path, import.meta.url));
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain", "content-security-policy": CSP });
    response.end(body);
  } catch {
    response.writeHead(404);
    response.end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const room = serveRoom(server, { echo: true });
const url = `http://localhost:${server.address().port}/`;

const { page, browser } = await (which === "firefox" ? firefox() : chromium());
const problems = [];
page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
page.on("pageerror", (error) => problems.push(String(error)));
let failed = false;
const check = (name, passed, detail = "") => {
  failed ||= !passed;
  console.log(`${passed ? "ok  " : "FAIL"} ${name} ${detail}`);
};
try {
  await page.goto(url);
  await page.waitForFunction(() => "smoke" in window);
  await page.evaluate(() => window.smoke.start());
  await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1000));
  const before = await page.evaluate(() => window.smoke.pixels());
  await new Promise((resolve) => setTimeout(resolve, 700));
  const after = await page.evaluate(() => window.smoke.pixels());
  const stats = await page.evaluate(() => window.room.stats());
  const events = await page.evaluate(() => window.smoke.events);
  const video = stats.sources.find((source) => source.kind === "video");
  const audio = stats.sources.find((source) => source.kind === "audio");
  check("the picture moves", before.some((value, i) => Math.abs(value - after[i]) > 8), `${before} -> ${after}`);
  check("the tone is heard", Math.abs((audio?.dominantHz ?? 0) - 440) < 2, `${audio?.dominantHz} Hz, level ${audio?.audioLevel}`);
  check("nothing is lost", video?.lost === 0 && audio?.lost === 0);
  check("the picture is sized as decoded", video?.width === 640 && video?.height === 360, `${video?.width}x${video?.height}`);
  check("no errors in the console", problems.length === 0, problems.join(" | "));
  console.log(JSON.stringify({ stats, events }, null, 1));
  await page.goto("about:blank");
  await new Promise((resolve) => setTimeout(resolve, 700));
  const end = room.log.slice(-2).map(([, message]) => message);
  check("closing the page is a goodbye", end.some((message) => message.type === "closed" && [1000, 1001].includes(message.code)), JSON.stringify(end));
} finally {
  await browser.close();
  server.close();
}
process.exit(failed ? 1 : 0);

async function chromium() {
  const { chromium: driver } = await import("playwright-core");
  const browser = await driver.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"] });
  return { browser, page: await browser.newPage() };
}

async function firefox() {
  const { default: driver } = await import("puppeteer-core");
  const browser = await driver.launch({
    browser: "firefox", executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr", headless: true,
    // Machines that test have no sound card, without which Firefox's audio contexts do not start.
    extraPrefsFirefox: { "media.autoplay.default": 0, "media.cubeb.force_mock_context": true },
  });
  return { browser, page: await browser.newPage() };
}
