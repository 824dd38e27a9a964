// A browser and a native app in one call.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { joinPage, memberId, moves, people, received, startChromium, stats } from './chromium.mjs';
import { joinNative, pass, scratch, startGateway, until } from './gateway.mjs';
import { camera, h264, pictures, rms, samples, strength } from './media.mjs';

const near = (hz, wanted, off = 8) => Math.abs(hz - wanted) <= off;
/** Whoever says that he leaves has left for the others within a second, and the look at it takes its time. */
const LEAVE_MS = 1100;

/** What the gateway counted at its native door, said when it stops. */
async function counters(gateway) {
  await gateway.stop();
  return gateway.log.find((line) => line.includes('native door is closed'));
}

/**
 * The gateway leaves out whole frames, and numbers what it sends without gaps. A gap is a datagram that a starved receiver lost
 * in its own socket, and today's apps do not ask for it again; each such gap costs one keyframe.
 */
async function assertFewGaps(gateway, { video }) {
  if (video.gaps <= 2 && video.lost < 0.02 * video.packets) return;
  assert.fail(`${JSON.stringify(video)}\n${await counters(gateway)}`);
}

for (const transport of ['websocket', 'webrtc']) describe(`a call over ${transport}`, () => {
  const query = { transport: transport === 'websocket' ? 'ws' : 'webrtc' };

  test('a browser is heard and seen by a native, and the other way round', async (t) => {
    const folder = scratch(t);
    const gateway = await startGateway(t);
    const browser = await startChromium(t, { hz: 440 });
    const page = await joinPage(t, browser, gateway, 'first', 'Ana', { query });
    const [sound, picture] = [join(folder, 'sound.ogg'), join(folder, 'picture.h264')];
    const native = joinNative(t, gateway.native, 'first', {
      alias: 'Bo',
      args: ['--audio', 'tone:880', '--video', h264(30), '--fps', '30', '--record-audio', sound, '--record-video', picture],
    });

    await received(page, 'Bo', 'audio', (source) => near(source.dominantHz, 880) && source.audioLevel > 0.05);
    const seen = await received(page, 'Bo', 'video', (source) => source.framesDecoded > 60);
    assert.deepEqual([seen.width, seen.height, seen.codec], [640, 360, 'h264']);
    await until(`media comes by ${transport}`, async () => (await stats(page)).transport === transport);
    assert.ok(await moves(page, await memberId(page, 'Bo')), 'the tile does not move');
    assert.deepEqual(await people(page), ['Ana', 'Bo']);
    await pass(4000);

    const summary = await native.leave();
    assert.deepEqual(summary.participants.map((other) => other.alias).sort(), ['Ana', 'Bo']);
    const recorded = samples(sound);
    const steady = recorded.subarray(48_000);
    assert.ok(steady.length > 3 * 48_000, `${recorded.length / 48_000} s of sound`);
    assert.ok(strength(steady, 440) > 0.5 * rms(steady), `440 Hz ${strength(steady, 440)} of ${rms(steady)}`);
    const { decoded, different } = pictures(picture);
    assert.ok(decoded > 60 && different > 0.8 * decoded, `${decoded} pictures, ${different} different`);
    assert.ok(summary.video.longestPauseMs < 3000, `no picture for ${summary.video.longestPauseMs} ms`);
    await until('Bo has left', async () => (await people(page)).join() === 'Ana', { timeout: LEAVE_MS, every: 20 });
    await assertFewGaps(gateway, summary);
    assert.deepEqual(page.problems, []);
  });

  test('two browsers and a native hear and see each other, and late joiners see a moving picture', async (t) => {
    const gateway = await startGateway(t);
    const recording = join(scratch(t), 'picture.h264');
    // Two browsers that do everything in software are all that two cores can do: small pictures in small windows.
    const [picture, options] = [camera('320x180'), { query, viewport: { width: 800, height: 500 } }];
    const [one, two] = [await startChromium(t, { hz: 440, picture }), await startChromium(t, { hz: 660, picture })];
    const ana = await joinPage(t, one, gateway, 'trio', 'Ana', options);
    const native = joinNative(t, gateway.native, 'trio', { alias: 'Bo', args: ['--audio', 'tone:880', '--video', h264(300, '320x180', '300k'), '--fps', '30'] });
    await received(ana, 'Bo', 'video', (source) => source.framesDecoded > 10);
    // Ten seconds later: the last keyframe of Bo, whose file has one every 10 s, may be long ago.
    await pass(10_000);
    const cy = await joinPage(t, two, gateway, 'trio', 'Cy', options);
    const late = joinNative(t, gateway.native, 'trio', { alias: 'Di', args: ['--audio', 'tone:1100', '--record-video', recording] });
    for (const [page, alias, hz] of [[ana, 'Cy', 660], [cy, 'Ana', 440], [cy, 'Bo', 880], [ana, 'Bo', 880]]) {
      await received(page, alias, 'audio', (source) => near(source.dominantHz, hz));
    }
    for (const [page, alias] of [[ana, 'Cy'], [cy, 'Ana'], [cy, 'Bo']]) {
      const seen = await received(page, alias, 'video', (source) => source.framesDecoded > 30);
      // Counted from joining, so it says something about those who were there already.
      if (page === cy) assert.ok(seen.firstFrameMs < 3000, `${alias}'s first frame after ${seen.firstFrameMs} ms`);
    }
    for (const alias of ['Ana', 'Bo']) assert.ok(await moves(cy, await memberId(cy, alias)), `the late joiner sees a still picture of ${alias}`);
    await until('everybody is listed everywhere', async () => (await people(ana)).join() === 'Ana,Bo,Cy,Di' && (await people(cy)).join() === 'Ana,Bo,Cy,Di');
    // Long enough to count pictures.
    await pass(2000);
    const summary = await late.leave();
    assert.deepEqual(summary.participants.map((other) => other.alias).sort(), ['Ana', 'Bo', 'Cy', 'Di']);
    assert.ok(summary.video.firstFrameMs < 3000, `first frame after ${summary.video.firstFrameMs} ms`);
    const { decoded, different } = pictures(recording);
    assert.ok(decoded > 60 && different > 0.8 * decoded, `${decoded} pictures, ${different} different`);
    await native.leave();
    assert.deepEqual([...ana.problems, ...cy.problems], []);
    await assertFewGaps(gateway, summary);
  });

  test('mute and camera buttons are seen by the others', async (t) => {
    const gateway = await startGateway(t);
    const [one, two] = [await startChromium(t), await startChromium(t, { hz: 660 })];
    const ana = await joinPage(t, one, gateway, 'mute', 'Ana', { query });
    const bo = await joinPage(t, two, gateway, 'mute', 'Bo', { query });
    await received(bo, 'Ana', 'audio', (source) => near(source.dominantHz, 440));
    const muted = () => bo.evaluate(() => [...globalThis.wzp.room.participants.values()].find((other) => other.alias === 'Ana').muted);
    await ana.getByRole('button', { name: 'Mute', exact: true }).click();
    await until('Ana is muted', async () => (await muted()).audio);
    await received(bo, 'Ana', 'audio', (source) => source.audioLevel < 0.005);
    await ana.getByRole('button', { name: 'Camera', exact: true }).click();
    await until("Ana's camera is off", async () => (await muted()).video);
    await ana.getByRole('button', { name: 'Mute', exact: true }).click();
    await ana.getByRole('button', { name: 'Camera', exact: true }).click();
    await until('both are on again', async () => { const now = await muted(); return !now.audio && !now.video; });
    await received(bo, 'Ana', 'audio', (source) => near(source.dominantHz, 440) && source.audioLevel > 0.05);
    const before = (await received(bo, 'Ana', 'video')).framesDecoded;
    await received(bo, 'Ana', 'video', (source) => source.framesDecoded > before + 20);
    assert.deepEqual([...ana.problems, ...bo.problems], []);
  });
});

describe('who goes', () => {
  for (const transport of ['ws', 'webrtc']) test(`leaving, closing the tab and killing the browser are seen by the others in time, over ${transport}`, async (t) => {
    const query = { transport, camera: 'off' };
    const gateway = await startGateway(t);
    const [one, two] = [await startChromium(t), await startChromium(t, { hz: 660 })];
    const ana = await joinPage(t, one, gateway, 'leave', 'Ana', { query });
    const native = joinNative(t, gateway.native, 'leave', { alias: 'Bo', args: ['--audio', 'tone:880'] });
    await until('Bo is there', async () => (await people(ana)).join() === 'Ana,Bo');

    const left = await joinPage(t, two, gateway, 'leave', 'Cy', { query });
    await until('Cy is there', async () => (await people(ana)).includes('Cy'));
    await left.getByRole('button', { name: 'Leave', exact: true }).click();
    await until('Cy has left', async () => !(await people(ana)).includes('Cy'), { timeout: LEAVE_MS, every: 20 });
    await left.close();

    const closed = await joinPage(t, two, gateway, 'leave', 'Di', { query });
    await until('Di is there', async () => (await people(ana)).includes('Di'));
    await closed.close({ runBeforeUnload: true });
    await until('Di has left', async () => !(await people(ana)).includes('Di'), { timeout: LEAVE_MS, every: 20 });

    const killed = await startChromium(t, { hz: 770 });
    await joinPage(t, killed, gateway, 'leave', 'Ed', { query });
    await until('Ed is there', async () => (await people(ana)).includes('Ed'));
    // The native's connection is idle for as long as its own time-out meanwhile.
    native.child.kill('SIGKILL');
    await killed.kill();
    const state = () => ana.evaluate(() => [...globalThis.wzp.room.participants.values()].find((other) => other.alias === 'Ed')?.state ?? 'gone');
    await until('Ed is shown as reconnecting', async () => (await state()) === 'reconnecting', { timeout: 5000 });
    await until('Ed is gone', async () => (await state()) === 'gone', { timeout: 11_500 });

    await until('Bo is gone', async () => (await people(ana)).join() === 'Ana', { timeout: 20_000 });
  });
});
