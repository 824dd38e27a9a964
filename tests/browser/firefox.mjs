// A real Firefox. Playwright drives only its own build of it; puppeteer drives Debian's.
import puppeteer from 'puppeteer-core';
import { until } from './gateway.mjs';

const prefs = {
  'media.autoplay.default': 0,
  // Machines that test have no sound card, without which Firefox's audio contexts do not start.
  'media.cubeb.force_mock_context': true,
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.peerconnection.ice.loopback': true,
  // A fake microphone does not count as leave to know the machine's addresses, as a real one does. Without it Firefox offers
  // its default address only, and that as an mDNS name; from that address to a gateway on loopback it makes no checks itself.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
};

/** A Firefox of its own with its built-in microphone (a tone of 1 kHz) and camera (a changing colour). */
export async function startFirefox(t, { executablePath = '/usr/bin/firefox-esr' } = {}) {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true, extraPrefsFirefox: prefs });
  t.after(() => browser.close().catch(() => {}));
  return browser;
}

/** Opens the page in Firefox and joins; the page answers to `stats`, `received` and `people` as Chromium's does. */
export async function joinFirefox(t, browser, gateway, room, name, { query = {} } = {}) {
  const page = await browser.newPage();
  page.problems = [];
  page.on('console', (message) => { if (message.type() === 'error') page.problems.push(message.text()); });
  page.on('pageerror', (error) => page.problems.push(String(error)));
  await page.goto(gateway.url(room, { name, autojoin: '1', processing: 'off', ...query }));
  await until(`${name} in ${room}`, () => page.evaluate(() => globalThis.wzp?.room?.state === 'connected'));
  return page;
}
