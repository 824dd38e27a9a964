/** AV1 temporal units in the low-overhead format (AV1 specification, section 5). */

const OBU_SEQUENCE_HEADER = 1;
const OBU_TEMPORAL_DELIMITER = 2;

/** One OBU: its type, where it lies header included, and where its payload begins. */
export interface Obu {
  type: number;
  start: number;
  payload: number;
  end: number;
}

/** The OBUs of a temporal unit. Stops at the first malformed one; an OBU without size field reaches to the end. */
export function obus(data: Uint8Array): Obu[] {
  const found: Obu[] = [];
  let at = 0;
  while (at < data.length) {
    const header = data[at] ?? 0;
    if (header & 0x80) break;
    let payload = at + (header & 0x04 ? 2 : 1);
    let size = data.length - payload;
    if (header & 0x02) {
      const coded = leb128(data, payload);
      if (!coded) break;
      size = coded.value;
      payload += coded.bytes;
    }
    const end = payload + size;
    if (size < 0 || end > data.length) break;
    found.push({ type: (header >> 3) & 15, start: at, payload, end });
    at = end;
  }
  return found;
}

function leb128(data: Uint8Array, at: number): { value: number; bytes: number } | undefined {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = data[at + i];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (!(byte & 0x80)) return { value, bytes: i + 1 };
  }
  return undefined;
}

/** Makes encoder output fit the protocol: no temporal delimiter, and a sequence header in every keyframe. */
export class SequenceHeaders {
  #header: Uint8Array | undefined;

  /** `undefined` for a keyframe whose sequence header is not known, or an empty unit. */
  complete(temporalUnit: Uint8Array, keyframe: boolean): Uint8Array | undefined {
    const units = obus(temporalUnit).filter((obu) => obu.type !== OBU_TEMPORAL_DELIMITER);
    const first = units[0];
    if (!first) return undefined;
    const header = units.find((obu) => obu.type === OBU_SEQUENCE_HEADER);
    if (header) this.#header = temporalUnit.slice(header.start, header.end);
    // The delimiter is always first, so what remains is one piece.
    const rest = temporalUnit.subarray(first.start);
    if (!keyframe || header) return rest;
    if (!this.#header) return undefined;
    const whole = new Uint8Array(this.#header.length + rest.length);
    whole.set(this.#header);
    whole.set(rest, this.#header.length);
    return whole;
  }
}

/** The codec string for WebCodecs of a temporal unit with a sequence header, `av01.0.04M.08`; `undefined` without one. */
export function av1CodecString(data: Uint8Array): string | undefined {
  const header = obus(data).find((obu) => obu.type === OBU_SEQUENCE_HEADER);
  if (!header) return undefined;
  const bits = new Bits(data.subarray(header.payload, header.end));
  const profile = bits.read(3);
  bits.read(1); // still_picture
  let level = 0;
  let tier = 0;
  if (bits.read(1)) {
    level = bits.read(5); // reduced_still_picture_header
  } else {
    let decoderModel = false;
    let delayBits = 0;
    if (bits.read(1)) {
      bits.read(32); // num_units_in_display_tick
      bits.read(32); // time_scale
      if (bits.read(1)) bits.uvlc();
      decoderModel = bits.read(1) === 1;
      if (decoderModel) {
        delayBits = bits.read(5) + 1;
        bits.read(32);
        bits.read(10);
      }
    }
    const displayDelay = bits.read(1) === 1;
    const points = bits.read(5) + 1;
    for (let i = 0; i < points; i++) {
      bits.read(12); // operating_point_idc
      const pointLevel = bits.read(5);
      const pointTier = pointLevel > 7 ? bits.read(1) : 0;
      if (decoderModel && bits.read(1)) bits.read(2 * delayBits + 1);
      if (displayDelay && bits.read(1)) bits.read(4);
      if (i === 0) {
        level = pointLevel;
        tier = pointTier;
      }
    }
  }
  // Browsers make only 8-bit pictures of camera input; the depth is spelled so in the string.
  return `av01.${profile}.${String(level).padStart(2, "0")}${tier ? "H" : "M"}.08`;
}

class Bits {
  #at = 0;
  constructor(readonly data: Uint8Array) {}

  read(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      const bit = ((this.data[this.#at >> 3] ?? 0) >> (7 - (this.#at & 7))) & 1;
      value = value * 2 + bit;
      this.#at++;
    }
    return value;
  }

  uvlc(): void {
    let zeros = 0;
    while (zeros < 32 && this.#at < this.data.length * 8 && this.read(1) === 0) zeros++;
    if (zeros < 32) this.read(zeros);
  }
}
