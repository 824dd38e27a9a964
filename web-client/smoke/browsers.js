// Browsers for the smoke runs: `[{ page, browser }]`, the same few methods in both drivers.

export async function launch(which) {
  return which === "firefox" ? firefox() : chromium();
}

async function chromium() {
  const { chromium: driver } = await import("playwright-core");
  const browser = await driver.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"],
  });
  return { browser, page: await browser.newPage() };
}

/** Firefox as Debian has it. Playwright drives only its own build of it; puppeteer drives any. */
export async function firefox(prefs = {}) {
  const { default: driver } = await import("puppeteer-core");
  const browser = await driver.launch({
    browser: "firefox", executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr", headless: true,
    extraPrefsFirefox: {
      "media.autoplay.default": 0,
      // Machines that test have no sound card, without which Firefox's audio contexts do not start.
      "media.cubeb.force_mock_context": true,
      "media.navigator.streams.fake": true,
      "media.navigator.permission.disabled": true,
      "media.peerconnection.ice.loopback": true,
      ...prefs,
    },
  });
  return { browser, page: await browser.newPage() };
}

/** Serves the built package and the smoke page. */
export async function servePage() {
  const { readFile } = await import("node:fs/promises");
  const { createServer } = await import("node:http");
  const { extname } = await import("node:path");
  const types = { ".js": "text/javascript", ".html": "text/html" };
  // A handler answers and says so by `true`.
  const handlers = [];
  const server = createServer(async (request, response) => {
    for (const handler of handlers) if (await handler(request, response)) return;
    const { pathname } = new URL(request.url, "http://x");
    const path = pathname === "/" ? "./index.html" : pathname.startsWith("/lib/") ? `../dist${pathname}` : `.${pathname}`;
    try {
      const body = await readFile(new URL(path, import.meta.url));
      // The page's own policy, as far as this page needs it, and connections to the gateway under test.
      const csp = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; connect-src *; media-src 'self' mediastream:";
      response.writeHead(200, { "content-type": types[extname(path)] ?? "text/plain", "content-security-policy": csp });
      response.end(body);
    } catch {
      response.writeHead(404);
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://localhost:${server.address().port}/`, handlers };
}

/** Collects what must not happen in a page. */
export function watch(page) {
  const problems = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  return problems;
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `test` gives something true. */
export async function until(test, ms, what) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await test();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for: ${what}`);
    await sleep(100);
  }
}
