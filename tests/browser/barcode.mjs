// How old is what one sees: a picture that carries the time at which it was drawn, and its reading at the other end.

const columns = 7;
const rows = 3;

/** Publishes a moving picture whose blocks spell the time (20 bits of ms, and their parity). Runs in the page. */
export const publishClock = (page, options = {}) => page.evaluate(async ([columns, rows, { width = 1280, height = 720, maxBitrate = 800_000 }]) => {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  const draw = () => {
    const now = Date.now() % (1 << 20);
    context.fillStyle = '#888';
    context.fillRect(0, 0, width, height);
    // Something that costs bits: moving lines below the blocks.
    for (let i = 0; i < 60; i += 1) {
      context.fillStyle = `hsl(${(now / 5 + i * 37) % 360} 80% 50%)`;
      context.fillRect((now / 3 + i * 97) % width, height * 0.6 + (i % 12) * height * 0.03, 40, 20);
    }
    let parity = 0;
    for (let bit = 0; bit < columns * rows; bit += 1) {
      const on = bit < 20 ? (now >> bit) & 1 : parity;
      parity ^= on;
      context.fillStyle = on ? '#fff' : '#000';
      context.fillRect((bit % columns) * width / columns, Math.floor(bit / columns) * height * 0.18, width / columns, height * 0.18);
    }
  };
  draw();
  setInterval(draw, 33);
  globalThis.clockTrack = canvas.captureStream(30).getVideoTracks()[0];
  await globalThis.wzp.room.publish(globalThis.clockTrack, { source: 'camera', maxBitrate });
}, [columns, rows, options]);

/** Starts to note the age of every new picture in a member's tile. Runs in the page. */
export const watchClock = (page, alias) => page.evaluate(([alias, columns, rows]) => {
  const small = Object.assign(document.createElement('canvas'), { width: columns * 8, height: 40 });
  const context = small.getContext('2d', { willReadFrequently: true });
  globalThis.ages = [];
  let last = -1;
  const look = () => {
    requestAnimationFrame(look);
    const member = [...globalThis.wzp.room.participants.values()].find((other) => other.alias === alias);
    const element = member && document.querySelector(`[data-participant="${member.id}"]`)?.querySelector('video, canvas');
    if (!element) return;
    context.drawImage(element, 0, 0, small.width, small.height);
    const pixels = context.getImageData(0, 0, small.width, small.height).data;
    let [value, parity] = [0, 0];
    for (let bit = 0; bit < columns * rows; bit += 1) {
      const x = (bit % columns) * 8 + 4;
      const y = Math.floor((Math.floor(bit / columns) + 0.5) * 0.18 * 40);
      const level = pixels[(y * small.width + x) * 4 + 1];
      if (level > 90 && level < 165) return;
      const on = level > 127 ? 1 : 0;
      if (bit < 20) value |= on << bit;
      parity ^= on;
    }
    if (parity !== 0 || value === last) return;
    last = value;
    const age = ((Date.now() % (1 << 20)) - value + (1 << 20)) % (1 << 20);
    if (age < 60_000) globalThis.ages.push(age);
  };
  look();
}, [alias, columns, rows]);

/** The ages noted since the last call, ms, ascending. */
export const takeAges = async (page) => (await page.evaluate(() => globalThis.ages.splice(0))).sort((a, b) => a - b);

/** The value below which the given share of sorted numbers lies. */
export const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
