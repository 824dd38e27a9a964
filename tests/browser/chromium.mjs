// Real browsers with real pictures and sounds.
import { chromium } from 'playwright-core';
import { until } from './gateway.mjs';
import { camera, tone } from './media.mjs';

const flags = [
  '--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-first-run', '--autoplay-policy=no-user-gesture-required',
  // What playwright switches off, and two pages of the address bar, which take a second of CPU for every window.
  '--disable-features=AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,AvoidCorsURLLoaderRestartOnRedirect,OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,PreconnectToSearch,WebUIOmniboxPopup,WebUIOmniboxAimPopup',
];

/** A Chromium of its own: its microphone gives a tone of `hz`, its camera a moving picture. */
export async function startChromium(t, { hz = 440, picture = camera(), executablePath = '/usr/bin/chromium', args = [], devices = true } = {}) {
  const media = devices ? [`--use-file-for-fake-video-capture=${picture}`, `--use-file-for-fake-audio-capture=${tone(hz)}`] : [];
  const server = await chromium.launchServer({ executablePath, headless: true, args: [...flags, ...media, ...args] });
  t.after(() => server.close().catch(() => {}));
  const browser = await chromium.connect(server.wsEndpoint());
  browser.kill = () => server.kill();
  return browser;
}

/** Opens a page; whatever it writes to the console as an error fails the test. */
export async function openPage(t, browser, url, { viewport = { width: 960, height: 600 }, allow = [], init, ...options } = {}) {
  const context = await browser.newContext({ viewport, ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  if (init) await page.addInitScript(init);
  page.problems = [];
  page.on('console', (message) => {
    if (message.type() === 'error' && !allow.some((pattern) => pattern.test(message.text()))) page.problems.push(message.text());
  });
  page.on('pageerror', (error) => page.problems.push(String(error)));
  await page.goto(url);
  return page;
}

/** Opens the page and joins; resolves when it is in the room. */
export async function joinPage(t, browser, gateway, room, name, { query = {}, ...options } = {}) {
  const page = await openPage(t, browser, gateway.url(room, { name, autojoin: '1', processing: 'off', ...query }), options);
  await until(`${name} in ${room}`, () => page.evaluate(() => globalThis.wzp?.room?.state === 'connected'));
  return page;
}

/** What the page says of what it receives. */
export const stats = (page) => page.evaluate(() => globalThis.wzp.stats());

/** The received track of a member, once `test` is true of it. */
export async function received(page, alias, kind, test = () => true, options = {}) {
  return until(`${kind} of ${alias}`, async () => {
    const all = await stats(page);
    const found = all.sources.find((source) => source.alias === alias && source.kind === kind);
    return found && test(found) ? found : false;
  }, { timeout: 20000, ...options }).catch(async (error) => {
    throw new Error(`${error.message}\nstats: ${JSON.stringify(await stats(page).catch(String))}\nproblems: ${page.problems}`);
  });
}

/** Names of everybody whom the page shows. */
export const people = (page) => page.evaluate(() => [...globalThis.wzp.room.participants.values()].map((participant) => participant.alias).sort());

/** The id of the member whom a page shows under this name. */
export const memberId = (page, alias) => page.evaluate((name) => [...globalThis.wzp.room.participants.values()].find((one) => one.alias === name)?.id, alias);

/**
 * Whether the picture in a member's tile moves: its pixels change within two seconds. The pixels of the picture alone, without
 * what the page draws around and over it.
 */
export const moves = (page, id) => page.evaluate(async (id) => {
  const context = Object.assign(document.createElement('canvas'), { width: 64, height: 36 }).getContext('2d', { willReadFrequently: true });
  const look = () => {
    const element = document.querySelector(`[data-participant="${id}"]`)?.querySelector('video, canvas');
    if (!element) return '';
    context.drawImage(element, 0, 0, 64, 36);
    return context.getImageData(0, 0, 64, 36).data.join();
  };
  const first = look();
  for (let tries = 0; first !== '' && tries < 20; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = look();
    if (now !== '' && now !== first) return true;
  }
  return false;
}, id);
