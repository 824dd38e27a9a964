// Drives headless Chromium against the engine's test server: `node run.mjs <url> <scenario> [options as JSON]`.
// Prints one JSON line with what the pages saw.
import { chromium } from 'playwright-core';

const [url, scenario, options = '{}'] = process.argv.slice(2);
const { codec = 'H264', seconds = 4 } = JSON.parse(options);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    '--autoplay-policy=no-user-gesture-required',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
  ],
});

const page = async () => {
  const opened = await (await browser.newContext()).newPage();
  opened.on('console', (message) => console.error('page:', message.text()));
  await opened.goto(url);
  return opened;
};
const call = (opened, name, argument = {}) => opened.evaluate(`window[${JSON.stringify(name)}](${JSON.stringify(argument)})`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Stock Firefox speaks WebDriver BiDi, which playwright-core does not.
let firefox;
const firefoxPage = async () => {
  const { default: puppeteer } = await import('puppeteer-core');
  firefox ??= await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox',
    headless: true,
    extraPrefsFirefox: {
      'media.navigator.permission.disabled': true,
      'media.navigator.streams.fake': true,
      'media.autoplay.default': 0,
      'media.peerconnection.ice.loopback': true,
      'media.peerconnection.ice.obfuscate_host_addresses': false,
    },
  });
  const opened = await firefox.newPage();
  opened.on('console', (message) => console.error('firefox:', message.text()));
  await opened.goto(url);
  return opened;
};

const scenarios = {
  // Firefox publishes, Chromium watches.
  async fromFirefox() {
    const [publisher, viewer] = [await firefoxPage(), await page()];
    const published = await call(publisher, 'publish', { id: 1, codec });
    const viewed = await call(viewer, 'view', { id: 2 });
    const before = await call(viewer, 'inbound');
    await sleep(seconds * 1000);
    return { published, viewed, before, after: await call(viewer, 'inbound') };
  },
  // Chromium publishes, Firefox watches.
  async toFirefox() {
    const [publisher, viewer] = [await page(), await firefoxPage()];
    const published = await call(publisher, 'publish', { id: 1, codec });
    const viewed = await call(viewer, 'view', { id: 2 });
    const before = await call(viewer, 'inbound');
    await sleep(seconds * 1000);
    return { published, viewed, before, after: await call(viewer, 'inbound') };
  },
  // One publisher, one viewer, `seconds` of media.
  async forward({ tcpOnly = false } = {}) {
    const [publisher, viewer] = [await page(), await page()];
    const published = await call(publisher, 'publish', { id: 1, codec, tcpOnly });
    const viewed = await call(viewer, 'view', { id: 2, tcpOnly });
    const before = await call(viewer, 'inbound');
    await sleep(seconds * 1000);
    const after = await call(viewer, 'inbound');
    return { published, viewed, before, after, outbound: await call(publisher, 'outbound') };
  },
  async simulcast() {
    const publisher = await page();
    const published = await call(publisher, 'publish', { id: 1, codec, simulcast: true });
    await sleep(seconds * 1000);
    return { published };
  },
  tcp: () => scenarios.forward({ tcpOnly: true }),
  async renegotiate() {
    const [publisher, viewer] = [await page(), await page()];
    await call(publisher, 'publish', { id: 1, codec });
    await call(viewer, 'view', { id: 2, lines: 2 });
    const before = await call(viewer, 'inbound');
    const renegotiated = await call(viewer, 'renegotiate', { rounds: 20 });
    const after = await call(viewer, 'inbound');
    return { before, renegotiated, after };
  },
  async restart() {
    const [publisher, viewer] = [await page(), await page()];
    await call(publisher, 'publish', { id: 1, codec });
    await call(viewer, 'view', { id: 2 });
    const before = await call(viewer, 'inbound');
    const viewerRestart = await call(viewer, 'restartIce');
    const after = await call(viewer, 'inbound');
    return { before, viewerRestart, after };
  },
  // Joins one after the other; the times are those of a loaded page.
  async joins() {
    const publisher = await page();
    await call(publisher, 'publish', { id: 1, codec });
    const times = [];
    for (let round = 0; round < 10; round += 1) {
      const viewer = await page();
      times.push(await call(viewer, 'view', { id: 100 + round }));
      await call(viewer, 'closePeer');
      await viewer.close();
    }
    return { times };
  },
};

try {
  console.log(JSON.stringify(await scenarios[scenario]()));
} finally {
  await browser.close();
  await firefox?.close();
}
