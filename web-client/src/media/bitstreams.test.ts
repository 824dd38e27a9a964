import { describe, expect, it } from "vitest";
import { av1CodecString, obus, SequenceHeaders } from "./av1.js";
import { annexB, h264BaselineFor, h264CodecString, nalUnits, ParameterSets } from "./h264.js";

const sps = Uint8Array.of(0x67, 0x42, 0xc0, 0x1f, 0x95, 0xa0);
const pps = Uint8Array.of(0x68, 0xce, 0x3c, 0x80);
const idr = Uint8Array.of(0x65, 0x88, 0x84, 0x00, 0x01, 0x02);

describe("H.264 access units", () => {
  it("are split at three and four byte start codes", () => {
    const data = Uint8Array.of(0, 0, 0, 1, ...sps, 0, 0, 1, ...pps, 0, 0, 0, 1, ...idr);
    expect(nalUnits(data).map((unit) => [unit.type, unit.end - unit.start])).toEqual([[7, 6], [8, 4], [5, 6]]);
  });

  it("without start code have no units", () => {
    expect(nalUnits(Uint8Array.of(1, 2, 3))).toEqual([]);
    expect(nalUnits(new Uint8Array(0))).toEqual([]);
  });

  it("give the codec string of their SPS", () => {
    expect(h264CodecString(annexB([sps, pps, idr]))).toBe("avc1.42c01f");
    expect(h264CodecString(annexB([idr]))).toBeUndefined();
  });

  it("get the remembered parameter sets when a keyframe lacks them", () => {
    const sets = new ParameterSets();
    expect(sets.complete(annexB([idr]), true)).toBeUndefined();
    const whole = annexB([sps, pps, idr]);
    expect(sets.complete(whole, true)).toBe(whole);
    expect(sets.complete(annexB([idr]), true)).toEqual(whole);
    const delta = annexB([Uint8Array.of(0x41, 1, 2)]);
    expect(sets.complete(delta, false)).toBe(delta);
  });

  it("are announced with a level that has room for the picture", () => {
    expect(h264BaselineFor(640, 360, 30)).toBe("avc1.42e01f");
    expect(h264BaselineFor(1280, 720, 30)).toBe("avc1.42e01f");
    expect(h264BaselineFor(1920, 1080, 30)).toBe("avc1.42e028");
    expect(h264BaselineFor(3840, 2160, 30)).toBe("avc1.42e033");
  });
});

describe("AV1 temporal units", () => {
  // A sequence header of profile 0, level index 4 (3.0), without timing information and with one operating point.
  const header = Uint8Array.of(0x0a, 4, 0b000_0_0_0_0_0, 0b0000_0000, 0b0000_0000, 0b00100_000);
  const delimiter = Uint8Array.of(0x12, 0);
  const frame = Uint8Array.of(0x32, 3, 9, 9, 9);

  it("lose their delimiter and keep the sequence header", () => {
    expect(new SequenceHeaders().complete(Uint8Array.of(...delimiter, ...header, ...frame), true)).toEqual(Uint8Array.of(...header, ...frame));
  });

  it("get the remembered sequence header when a keyframe lacks it", () => {
    const headers = new SequenceHeaders();
    expect(headers.complete(frame, true)).toBeUndefined();
    headers.complete(Uint8Array.of(...header, ...frame), true);
    expect(headers.complete(Uint8Array.of(...delimiter, ...frame), true)).toEqual(Uint8Array.of(...header, ...frame));
    expect(headers.complete(Uint8Array.of(...delimiter, ...frame), false)).toEqual(frame);
  });

  it("are parsed no further than they are sound", () => {
    expect(obus(Uint8Array.of(...frame, 0x32, 200, 1))).toHaveLength(1);
    expect(obus(Uint8Array.of(0x32, 0xff, 0xff, 0xff, 0xff, 0xff))).toEqual([]);
  });

  it("give the codec string of their sequence header", () => {
    expect(av1CodecString(Uint8Array.of(...header, ...frame))).toMatch(/^av01\.0\.\d\dM\.08$/);
    expect(av1CodecString(frame)).toBeUndefined();
  });
});
