// Nobody sends a larger picture than the one who sees it largest shows.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { joinPage, received, startChromium, stats } from './chromium.mjs';
import { startGateway, until } from './gateway.mjs';

const SMALL = { width: 390, height: 300 };
const LARGE = { width: 1280, height: 800 };

/** The camera's shorter side, and the most that is sent for a small window. */
const FULL = 360;
const ENOUGH = 270;

const shorter = ({ width, height }) => Math.min(width, height);

for (const transport of ['websocket', 'webrtc']) describe(`the size of pictures over ${transport}`, () => {
  const query = { transport: transport === 'websocket' ? 'ws' : 'webrtc' };

  test('follows the window of the one who shows it largest', async (t) => {
    const gateway = await startGateway(t);
    const browser = await startChromium(t);
    const ana = await joinPage(t, browser, gateway, 'sizes', 'Ana', { query });
    // Before anybody watches in a small window.
    const full = await until('the full bit rate', async () => {
      const { transport: now, sending } = await stats(ana);
      const rate = sending.find(({ kind }) => kind === 'video')?.bitrate;
      return now === transport && rate > 700_000 && rate;
    }, { timeout: 20_000 });
    const watch = (name, viewport) => joinPage(t, browser, gateway, 'sizes', name, { viewport, query: { ...query, camera: 'off', mic: 'off' } });
    const bo = await watch('Bo', SMALL);
    const took = async (what, test, timeout) => {
      const begun = Date.now();
      const source = await received(bo, 'Ana', 'video', (one) => one.framesDecoded > 0 && test(one), { timeout });
      const { bitrate, limitReason } = (await stats(ana)).sending.find(({ kind }) => kind === 'video');
      t.diagnostic(`${what}: ${source.width}x${source.height} after ${Date.now() - begun} ms, ${Math.round(bitrate / 1000)} kbit/s, held back by ${limitReason ?? 'nothing'}`);
      return source;
    };
    /** That nothing but the size held the picture back: it is whole again soon, at its full rate. */
    const whole = async (before) => {
      let rates;
      await until('the full bit rate and frame rate', async () => {
        const [sent, { framesDecoded }] = [(await stats(ana)).sending.find(({ kind }) => kind === 'video'), await received(bo, 'Ana', 'video')];
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const fps = (await received(bo, 'Ana', 'video')).framesDecoded - framesDecoded;
        rates = `${Math.round(sent.bitrate / 1000)} kbit/s of ${Math.round(before / 1000)}, ${fps} pictures a second`;
        return sent.bitrate > 0.7 * before && fps >= 20;
      }, { timeout: 8_000 }).catch((error) => assert.fail(`${error.message}: ${rates}`));
      t.diagnostic(`then ${rates}`);
    };
    await until(`media goes by ${transport}`, async () => (await stats(bo)).transport === transport && (await stats(ana)).transport === transport);

    const small = await took('a small window', (one) => shorter(one) <= ENOUGH, 15_000);
    assert.ok(shorter(small) >= 90, `${small.width}x${small.height}`);
    await bo.setViewportSize(LARGE);
    await took('a large window', (one) => shorter(one) === FULL, 10_000);
    await whole(full);
    await bo.setViewportSize(SMALL);
    await took('small again', (one) => shorter(one) <= ENOUGH, 15_000);
    // Another who shows it large has all of it, and when he goes it is small again.
    const cy = await watch('Cy', LARGE);
    await took('somebody else with a large window', (one) => shorter(one) === FULL, 10_000);
    await whole(full);
    await cy.close();
    const last = await took('without him', (one) => shorter(one) <= ENOUGH, 15_000);
    const decoded = last.framesDecoded;
    await received(bo, 'Ana', 'video', (one) => one.framesDecoded > decoded + 20);
    assert.equal(last.decodeErrors, 0);
    assert.deepEqual([...ana.problems, ...bo.problems], []);
  });
});
