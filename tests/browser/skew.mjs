// How far sound and picture of one source are apart, by flashes and beeps that are sent together.
import assert from 'node:assert/strict';
import { pass } from './gateway.mjs';

/**
 * How long after its flash a beep is heard in a page, ms: the median of seven. `listen` runs in the page and notes both on one clock,
 * in ms, into `globalThis.events`; playout finds its delay within the first seconds, `settle` ms.
 */
export async function skew(t, page, what, listen, settle = 4000) {
  await page.evaluate(listen);
  await pass(settle);
  await page.evaluate(() => { events.flashes = []; events.beeps = []; });
  await pass(7000);
  const { flashes: seen, beeps: heard } = await page.evaluate(() => events);
  const all = seen.flatMap((flash) => heard.map((beep) => beep - flash).filter((one) => Math.abs(one) < 500)).sort((x, y) => x - y);
  const median = all[all.length >> 1];
  t.diagnostic(`${what}: ${seen.length} flashes, ${heard.length} beeps; beep after flash: median ${median?.toFixed(1)} ms, ${all[0]?.toFixed(1)} to ${all.at(-1)?.toFixed(1)} ms`);
  assert.ok(all.length >= 4, `${what}: ${seen.length} flashes, ${heard.length} beeps`);
  return median;
}
