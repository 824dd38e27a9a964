/** H.264 byte streams (ITU-T H.264, annex B). */

export const NAL_IDR = 5;
export const NAL_SPS = 7;
export const NAL_PPS = 8;

/** One NAL unit of an access unit: its type, and where it lies, without start code. */
export interface NalUnit {
  type: number;
  start: number;
  end: number;
}

/** The NAL units of an access unit, in order. */
export function nalUnits(data: Uint8Array): NalUnit[] {
  const units: NalUnit[] = [];
  let start = -1;
  const length = data.length;
  for (let i = 0; i + 2 < length; ) {
    // Looking at the third byte first lets the scan go three bytes at a time.
    const third = data[i + 2] ?? 0;
    if (third > 1) {
      i += 3;
    } else if (third === 1 && data[i] === 0 && data[i + 1] === 0) {
      if (start >= 0) close(data, units, start, i);
      start = i + 3;
      i += 3;
    } else {
      i++;
    }
  }
  if (start >= 0) close(data, units, start, length);
  return units;
}

function close(data: Uint8Array, units: NalUnit[], start: number, end: number): void {
  // Zero bytes before a start code belong to neither.
  while (end > start && data[end - 1] === 0) end--;
  if (end > start) units.push({ type: (data[start] ?? 0) & 31, start, end });
}

/** The codec string for WebCodecs (RFC 6381) of the first SPS, `avc1.42e01f`; `undefined` without SPS. */
export function h264CodecString(data: Uint8Array): string | undefined {
  const sps = nalUnits(data).find((unit) => unit.type === NAL_SPS && unit.end - unit.start >= 4);
  if (!sps) return undefined;
  const hex = (offset: number): string => (data[sps.start + offset] ?? 0).toString(16).padStart(2, "0");
  return `avc1.${hex(1)}${hex(2)}${hex(3)}`;
}

/** Sees to it that every keyframe has its parameter sets, as the protocol wants: remembers them, and puts them before a keyframe that has none. */
export class ParameterSets {
  #sets: Uint8Array | undefined;

  /** Gives the access unit, with SPS and PPS if it is a keyframe and they are known; `undefined` for a keyframe that cannot be completed. */
  complete(accessUnit: Uint8Array, keyframe: boolean): Uint8Array | undefined {
    if (!keyframe) return accessUnit;
    const units = nalUnits(accessUnit);
    const sets = units.filter((unit) => unit.type === NAL_SPS || unit.type === NAL_PPS);
    if (sets.some((unit) => unit.type === NAL_SPS) && sets.some((unit) => unit.type === NAL_PPS)) {
      this.#sets = annexB(sets.map((unit) => accessUnit.subarray(unit.start, unit.end)));
      return accessUnit;
    }
    if (!this.#sets) return undefined;
    const whole = new Uint8Array(this.#sets.length + accessUnit.length);
    whole.set(this.#sets);
    whole.set(accessUnit, this.#sets.length);
    return whole;
  }
}

/** NAL units as a byte stream with four-byte start codes. */
export function annexB(units: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(units.reduce((sum, unit) => sum + unit.length + 4, 0));
  let offset = 0;
  for (const unit of units) {
    out[offset + 3] = 1;
    out.set(unit, offset + 4);
    offset += unit.length + 4;
  }
  return out;
}

/** The lowest level of constrained baseline that has room for this picture (table A-1), as a codec string. */
export function h264BaselineFor(width: number, height: number, fps: number): string {
  const macroblocks = Math.ceil(width / 16) * Math.ceil(height / 16);
  const levels: [level: number, frameMacroblocks: number, macroblocksPerSecond: number][] = [
    [30, 1620, 40500], [31, 3600, 108000], [32, 5120, 216000], [40, 8192, 245760], [42, 8704, 522240], [50, 22080, 589824], [51, 36864, 983040],
  ];
  // Level 3.1 is what WebRTC peers and hardware expect; lower ones gain nothing.
  const fit = levels.find(([level, frame, second]) => level >= 31 && macroblocks <= frame && macroblocks * fps <= second);
  return `avc1.42e0${(fit?.[0] ?? 52).toString(16)}`;
}
