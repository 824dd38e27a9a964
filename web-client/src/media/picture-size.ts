/** Sizes that pictures are asked for in, and what they need. All sides are the shorter ones, px. */

/** Few, so that a window that is drawn larger does not ask for one new size after another. */
const SIDES = [180, 270, 360, 540, 720, 1080] as const;
/** A picture that is enlarged by so little looks the same. */
const ENOUGH = 0.8;
/** More than this is not worth asking for: no bound. */
const UNBOUNDED = 1080;
/** The rate that a small picture needs, bit/s. */
const BITRATES: readonly { side: number; bitrate: number }[] = [
  { side: 180, bitrate: 200_000 },
  { side: 270, bitrate: 350_000 },
  { side: 360, bitrate: 600_000 },
  { side: 540, bitrate: 900_000 },
];

/** The side to ask for of a picture of this size that fills a place of this size; `undefined`: no bound. */
export function neededSide(picture: { width: number; height: number }, place: { width: number; height: number }): number | undefined {
  const scale = Math.max(place.width / picture.width, place.height / picture.height);
  const needed = Math.min(picture.width, picture.height) * scale;
  if (!(needed > 0)) return undefined;
  const side = SIDES.find((candidate) => candidate >= ENOUGH * needed) ?? UNBOUNDED;
  return side < UNBOUNDED ? side : undefined;
}

/** The most that a picture bounded to this side is worth, bit/s. */
export function bitrateOfSide(maxSide: number | undefined): number {
  return BITRATES.find(({ side }) => maxSide !== undefined && side >= maxSide)?.bitrate ?? Infinity;
}
