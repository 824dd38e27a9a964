// A page with nothing but the client library, and what it measures.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../browser/gateway.mjs';
import { BITS } from '../browser/media.mjs';

/** Runs in the page: joins, looks at what is shown for a while, leaves. Times in ms after the call. */
async function watch(url, transport, duration) {
  const { connect } = globalThis;
  const start = performance.timeOrigin + performance.now();
  const since = () => performance.timeOrigin + performance.now() - start;
  const marks = {};
  const seen = [];
  const room = await connect(url, { alias: 'viewer', id: crypto.randomUUID(), transport });
  marks.joined = since();
  room.on('transport', ({ media }) => { marks[media] ??= since(); });
  const small = Object.assign(document.createElement('canvas'), { width: BITS * 8, height: 16 });
  const context = small.getContext('2d', { willReadFrequently: true });
  const look = (track) => {
    if (room.state === 'closed') return;
    requestAnimationFrame(() => look(track));
    const { element } = track;
    context.drawImage(element, 0, 0, element.width || element.videoWidth, (element.height || element.videoHeight) * 0.2, 0, 0, small.width, 16);
    const pixels = context.getImageData(0, 8, small.width, 1).data;
    let [value, parity] = [0, 0];
    for (let bit = 0; bit < BITS; bit += 1) {
      const level = pixels[(bit * 8 + 4) * 4 + 1];
      const on = level > 127 ? 1 : 0;
      if (bit < BITS - 1) value |= on << bit;
      parity ^= on;
    }
    if (parity === 0 && value !== seen.at(-1)?.[1]) seen.push([start + since(), value]);
  };
  const first = await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`no picture: ${JSON.stringify(marks)}`)), 15_000);
    const follow = (track) => {
      if (track.kind !== 'video') return;
      document.body.replaceChildren(track.element);
      track.on('element', (element) => document.body.replaceChildren(element));
      track.on('firstframe', () => {
        if (track.element instanceof HTMLVideoElement) marks.rtp ??= since();
        if (marks.first === undefined) {
          marks.first = since();
          look(track);
          resolve(marks.first);
        }
      });
    };
    for (const participant of room.participants.values()) participant.tracks.forEach(follow);
    room.on('trackadded', follow);
  });
  await new Promise((resolve) => setTimeout(resolve, duration - since()));
  await room.disconnect();
  globalThis.prepare(url);
  document.body.replaceChildren();
  return { start, first, seen, marks };
}

/** Writes the page into a folder; its path. */
export function site(folder) {
  const root = join(folder, 'site');
  mkdirSync(root);
  cpSync(join(repository, 'web-client/dist/lib'), join(root, 'lib'), { recursive: true });
  writeFileSync(join(root, 'index.html'), '<!doctype html><link rel="icon" href="data:,"><title>join</title><body></body><script type="module" src="/bench.js"></script>');
  writeFileSync(join(root, 'bench.js'), `import { connect, prepare } from '/lib/index.js';
const BITS = ${BITS};
Object.assign(globalThis, { connect, prepare, watch: ${watch} });
prepare();
`);
  return root;
}
