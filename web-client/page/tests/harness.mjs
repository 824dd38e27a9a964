// What the tests of the page share: Chromium with invented devices, a page that collects console errors, axe, pictures.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
export const ARTIFACTS = process.env.WZP_ARTIFACTS ?? fileURLToPath(new URL("../../../artifacts/page/", import.meta.url));
mkdirSync(ARTIFACTS, { recursive: true });

export const SIZES = {
  desktop: { width: 1280, height: 800 },
  phone: { width: 390, height: 844 },
  small: { width: 320, height: 568 },
  lying: { width: 844, height: 390 },
};

const FLAGS = [
  "--no-sandbox",
  "--use-fake-ui-for-media-stream",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  // What playwright switches off, and two pages of the address bar, which take a second of CPU for every window.
  "--disable-features=AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,AvoidCorsURLLoaderRestartOnRedirect,OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,PreconnectToSearch,WebUIOmniboxPopup,WebUIOmniboxAimPopup",
  "--auto-select-desktop-capture-source=Entire screen",
  "--ignore-certificate-errors",
];

/**
 * Chromium. `devices: false` leaves the machine without microphone and camera; `deny: true` answers every
 * question of a page with "no".
 */
export async function launch({ devices = true, cameras = 1, fps = 20, deny = false, flags = [] } = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.WZP_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      ...FLAGS.filter((flag) => !deny || flag !== "--use-fake-ui-for-media-stream"),
      ...(deny ? ["--deny-permission-prompts"] : []),
      ...flags,
      ...(devices ? [`--use-fake-device-for-media-stream=device-count=${cameras},fps=${fps}`] : []),
      "--autoplay-policy=no-user-gesture-required",
    ],
  });
  onExit(() => browser.close());
  return browser;
}

const leftovers = [];

/** Something to end when the tests of a file are over, also those that failed half-way. */
export function onExit(end) {
  leftovers.push(end);
}

/** For `after()`: a browser or gateway that is left running would keep the test process from ending. */
export async function endAll() {
  for (const end of leftovers.splice(0).reverse()) await end();
}

/** A fresh profile and one page in it. `errors` collects everything that the console calls an error. */
export async function open(browser, { size = "desktop", scheme = "light", permissions = ["microphone", "camera", "clipboard-read", "clipboard-write"], storage = {} } = {}) {
  const context = await browser.newContext({
    viewport: SIZES[size],
    colorScheme: scheme,
    ignoreHTTPSErrors: true,
    hasTouch: size !== "desktop",
    isMobile: size !== "desktop",
    permissions,
  });
  await context.addInitScript((values) => {
    for (const [key, value] of Object.entries(values)) localStorage.setItem(key, value);
  }, storage);
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(`${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.setDefaultTimeout(30_000);
  return { context, page, errors };
}

/** Waits until the page is in a state. */
export async function inState(page, ...states) {
  // Not at every frame: a machine that draws slowly would ask slowly.
  await page.waitForFunction((wanted) => wanted.includes(document.body.dataset.state), states, { polling: 100 });
}

/** A picture kept as an artefact. */
export async function shot(page, name) {
  await page.screenshot({ path: `${ARTIFACTS}/${name}.png`, animations: "disabled" });
}

/** No finding of axe-core, best practices included. */
export async function accessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const words = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map(({ html, failureSummary }) => `   ${html}\n   ${failureSummary}`).join("\n")}`);
  assert.deepEqual(words, [], `axe findings: ${what}`);
}
