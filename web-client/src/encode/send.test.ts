import { describe, expect, it } from "vitest";
import { SendWindow } from "../media/acknowledge.js";
import { SizeLadder } from "./ladder.js";
import { RateControl } from "./rate-control.js";
import { Uplink } from "./uplink.js";

class Line {
  now = 0;
  window = new SendWindow();
  sent: number[] = [];
  asked: number[] = [];
  #count = 0;
  readonly uplink = new Uplink(
    (data) => {
      this.sent.push(data.byteLength);
      this.window.onSent(this.now, data.byteLength);
      this.#count++;
      return true;
    },
    () => this.window,
    () => this.now,
    (slot) => this.asked.push(slot),
  );

  ackAll(): void {
    this.window.onAck(this.#count, this.now);
    this.uplink.onAck();
  }
}

const frame = (pieces: number, bytes = 8192): ArrayBuffer[] => Array.from({ length: pieces }, () => new ArrayBuffer(bytes));

describe("the uplink", () => {
  it("lets audio pass between the pieces of a large keyframe", () => {
    const line = new Line();
    line.uplink.sendVideo(0, frame(20), true);
    expect(line.sent.length).toBe(8);
    line.uplink.sendAudio([new ArrayBuffer(80)]);
    expect(line.sent.at(-1)).toBe(80);
    line.now = 30;
    line.ackAll();
    line.now = 60;
    line.ackAll();
    expect(line.sent.filter((bytes) => bytes === 8192)).toHaveLength(20);
  });

  it("leaves video out while the window is closed and goes on at a keyframe", () => {
    const line = new Line();
    line.uplink.sendVideo(0, frame(1), true);
    line.now = 201;
    expect(line.uplink.isVideoOpen).toBe(false);
    expect(line.uplink.sendVideo(0, frame(1), false)).toBe(false);
    expect(line.asked).toEqual([]);
    line.now = 240;
    line.ackAll();
    expect(line.asked).toEqual([0]);
    expect(line.uplink.sendVideo(0, frame(1), false)).toBe(false);
    line.ackAll();
    expect(line.asked).toEqual([0]);
    expect(line.uplink.sendVideo(0, frame(1), true)).toBe(true);
    expect(line.uplink.sendVideo(0, frame(1), false)).toBe(true);
    expect(line.uplink.skippedFrames).toBe(2);
  });

  it("asks again for a keyframe that does not come", () => {
    const line = new Line();
    line.uplink.reset([0]);
    line.uplink.sendVideo(0, frame(1), false);
    for (line.now = 10; line.now < 1200; line.now += 10) line.ackAll();
    expect(line.asked).toEqual([0, 0, 0]);
  });

  it("drops the rest of a frame that got stuck half way", () => {
    const line = new Line();
    line.uplink.sendVideo(0, frame(20), true);
    const before = line.sent.length;
    line.now = 500;
    line.uplink.pump();
    line.ackAll();
    expect(line.sent.length).toBe(before);
    expect(line.uplink.sendVideo(0, frame(1), false)).toBe(false);
  });

  it("keeps audio going for a second longer, then drops the oldest", () => {
    const line = new Line();
    line.uplink.sendAudio(frame(1, 80));
    line.now = 1000;
    line.uplink.sendAudio(frame(1, 81));
    expect(line.sent).toEqual([80, 81]);
    line.now = 1300;
    for (let i = 0; i < 15; i++) line.uplink.sendAudio(frame(1, 100 + i));
    expect(line.sent).toEqual([80, 81]);
    expect(line.uplink.droppedAudio).toBe(5);
    line.ackAll();
    expect(line.sent.slice(2)).toEqual(Array.from({ length: 10 }, (_, i) => 105 + i));
  });

  it("begins with keyframes on a new connection", () => {
    const line = new Line();
    line.uplink.sendVideo(1, frame(1), true);
    line.uplink.reset([1]);
    expect(line.uplink.sendVideo(1, frame(1), false)).toBe(false);
    expect(line.uplink.sendVideo(1, frame(1), true)).toBe(true);
  });

  it("never keeps more than a quarter of a second of video waiting", () => {
    const line = new Line();
    for (let i = 0; i < 100; i++) {
      line.now = i * 33;
      line.uplink.sendVideo(0, frame(4), i === 0);
    }
    expect(line.sent.length).toBeLessThan(30);
  });
});

describe("rate control", () => {
  const connection = (delay: number): { window: SendWindow; ack: (now: number, delay: number) => void } => {
    const window = new SendWindow();
    let count = 0;
    const ack = (now: number, late: number): void => {
      window.onSent(now - late, 1);
      window.onAck(++count, now);
    };
    ack(0, delay);
    return { window, ack };
  };

  it("goes down by a quarter at late acknowledgements, at most every 600 ms", () => {
    const control = new RateControl(1_200_000);
    const { window, ack } = connection(20);
    ack(1000, 200);
    control.update(window, 1000);
    control.update(window, 1100);
    expect(control.bitrate).toBe(900_000);
    control.update(window, 1600);
    expect(control.bitrate).toBe(675_000);
    expect(control.limitedByConnection).toBe(true);
  });

  it("never goes under the minimum, and comes back", () => {
    const control = new RateControl(1_200_000);
    const { window, ack } = connection(20);
    for (let now = 1000; now < 20_000; now += 100) {
      ack(now, 300);
      control.update(window, now);
    }
    expect(control.bitrate).toBe(RateControl.MIN);
    for (let now = 20_000; now < 40_000; now += 100) {
      ack(now, 25);
      control.update(window, now);
    }
    expect(control.bitrate).toBe(1_200_000);
  });

  it("obeys a limit and forgets it when it is lifted", () => {
    const control = new RateControl(1_200_000);
    control.setLimit(300_000);
    expect(control.bitrate).toBe(300_000);
    expect(control.limitedByConnection).toBe(false);
    control.setLimit(5_000_000);
    expect(control.bitrate).toBe(1_200_000);
    control.setLimit(5_000_000, 350_000);
    expect([control.bitrate, control.allowed, control.limitedByConnection]).toEqual([350_000, 1_200_000, false]);
  });
});

describe("the size ladder", () => {
  it("sends 720p at the default rate and less at less", () => {
    const at = (bitrate: number): string => {
      const size = new SizeLadder("camera").choose(1280, 720, 30, bitrate, 0);
      return `${size.width}x${size.height}@${size.fps}`;
    };
    expect([1_200_000, 500_000, 300_000, 150_000, 100_000].map(at)).toEqual(["1280x720@30", "854x480@30", "640x360@30", "480x270@30", "320x180@15"]);
  });

  it("gives more pictures at once, and larger ones after a while", () => {
    const ladder = new SizeLadder("camera");
    const at = (bitrate: number, now: number): string => {
      const { height, fps } = ladder.choose(1280, 720, 30, bitrate, now);
      return `${height}@${fps}`;
    };
    expect(at(100_000, 0)).toBe("180@15");
    expect(at(1_200_000, 1000)).toBe("180@30");
    expect(at(1_200_000, 1000 + SizeLadder.UP_WAIT_MS)).toBe("720@30");
  });

  it("never enlarges, and keeps sizes even", () => {
    expect(new SizeLadder("camera").choose(321, 241, 30, 1_200_000, 0)).toEqual({ width: 322, height: 242, fps: 30 });
    expect(new SizeLadder("camera").choose(640, 360, 15, 1_200_000, 0)).toEqual({ width: 640, height: 360, fps: 15 });
  });

  it("does not flap around a threshold", () => {
    const ladder = new SizeLadder("camera");
    ladder.choose(1280, 720, 30, 690_000, 0);
    expect(ladder.choose(1280, 720, 30, 710_000, 1).height).toBe(480);
    expect(ladder.choose(1280, 720, 30, 880_000, 1000).height).toBe(480);
    expect(ladder.choose(1280, 720, 30, 690_000, 3000).height).toBe(480);
    expect(ladder.choose(1280, 720, 30, 880_000, 4000).height).toBe(480);
    expect(ladder.choose(1280, 720, 30, 880_000, 7999).height).toBe(480);
    expect(ladder.choose(1280, 720, 30, 880_000, 8000).height).toBe(720);
  });

  it("takes a step down for a minute after a keyframe over 150 kB", () => {
    const ladder = new SizeLadder("camera");
    expect(ladder.choose(1280, 720, 30, 1_200_000, 0).height).toBe(720);
    expect(ladder.onKeyframe(150_000, 0)).toBe(false);
    expect(ladder.onKeyframe(150_001, 0)).toBe(true);
    expect(ladder.choose(1280, 720, 30, 1_200_000, 1).height).toBe(480);
    expect(ladder.reason).toBe("frame_too_large");
    for (let now = 60_001; now < 200_000; now += 5000) ladder.choose(1280, 720, 30, 1_200_000, now);
    expect(ladder.choose(1280, 720, 30, 1_200_000, 200_000).height).toBe(720);
    expect(ladder.reason).toBeUndefined();
  });

  it("sends no more than the viewers need, and all of it at once when they need it again", () => {
    const ladder = new SizeLadder("camera");
    const at = (maxSide: number | undefined, width = 1280, height = 720): string => {
      const size = ladder.choose(width, height, 30, 1_200_000, 0, maxSide);
      return `${size.width}x${size.height}`;
    };
    expect([undefined, 720, 540, 360, 271, 180].map((side) => at(side))).toEqual(["1280x720", "1280x720", "960x540", "640x360", "480x270", "320x180"]);
    expect([at(360, 720, 1280), at(180, 640, 480), at(360, 320, 240)]).toEqual(["360x640", "240x180", "320x240"]);
    expect(at(undefined)).toBe("1280x720");
    expect(new SizeLadder("screen").choose(1920, 1080, 15, 1_200_000, 0, 180).height).toBe(1080);
  });

  it("has its own reasons beside the viewers'", () => {
    expect(new SizeLadder("camera").choose(1280, 720, 30, 150_000, 0, 360).height).toBe(270);
    expect(new SizeLadder("camera").choose(1280, 720, 30, 600_000, 0, 180).height).toBe(180);
  });

  it("keeps screens sharp and lowers their picture rate", () => {
    expect(new SizeLadder("screen").choose(1920, 1080, 15, 150_000, 0)).toEqual({ width: 1920, height: 1080, fps: 15 });
  });
});
