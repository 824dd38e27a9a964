import { describe, expect, it } from "vitest";
import { FreezeMeter, Presenter, type Pending } from "./presenter.js";

const item = (timestamp: number, arrived: number): Pending<number> => ({ timestamp, arrived, picture: timestamp });

/** A presenter past its catch-up, for which the room's clock is the local one. */
function live(): Presenter<number> {
  const presenter = new Presenter<number>();
  presenter.setRoomClock(0, 0);
  presenter.push(item(0, 10), 10);
  presenter.next(10);
  return presenter;
}

describe("presenting", () => {
  it("shows at once without sound", () => {
    const presenter = live();
    presenter.push(item(100, 120), 122);
    expect(presenter.next(122).show?.picture).toBe(100);
  });

  it("waits for the sound of the same participant", () => {
    const presenter = live();
    presenter.setHeard(1000, 1090);
    presenter.push(item(1000, 1020), 1025);
    expect(presenter.next(1025)).toMatchObject({ show: undefined, wakeAt: 1090 });
    expect(presenter.next(1090).show?.picture).toBe(1000);
  });

  it("waits no longer than 200 ms", () => {
    const presenter = live();
    presenter.setHeard(1000, 5000);
    presenter.push(item(1000, 1020), 1025);
    expect(presenter.next(1025).wakeAt).toBe(1220);
  });

  it("waits less for the sound in the second after a join", () => {
    const presenter = live();
    const waits = [0, 500, 900, 1100].map((now) => {
      presenter.setHeard(0, 5000);
      presenter.push(item(10 + now, 10 + now), 10 + now);
      const { wakeAt = NaN } = presenter.next(10 + now);
      presenter.clear();
      return Math.round(wakeAt - 10 - now);
    });
    expect(waits).toEqual([40, 120, 184, 200]);
  });

  it("does not wait for sound that stopped", () => {
    const presenter = live();
    presenter.setHeard(0, 100);
    presenter.push(item(560, 570), 570);
    expect(presenter.next(570).wakeAt).toBe(660);
    presenter.clear();
    presenter.push(item(620, 630), 630);
    expect(presenter.next(630).show?.picture).toBe(620);
  });

  it("does not wait for sound that comes from elsewhere", () => {
    const presenter = live();
    presenter.setHeard(0, 100);
    presenter.setUnheard();
    presenter.push(item(110, 120), 120);
    expect(presenter.next(120).show?.picture).toBe(110);
  });

  it("waits longer and longer for sound that WebRTC brings, and for a second and a half after it was told of it", () => {
    const presenter = live();
    const waits = [5000, 6000, 7000, 8490, 8510].map((now) => {
      if (now < 8000) presenter.setHeard(now - 100, now, true);
      presenter.push(item(now - 10, now), now);
      const { show, wakeAt = NaN } = presenter.next(now);
      presenter.clear();
      return show ? 0 : Math.round(wakeAt - now);
    });
    expect(waits).toEqual([0, 30, 60, 90, 0]);
  });

  it("skips what is overdue and shows the newest that is due", () => {
    const presenter = live();
    presenter.setHeard(1000, 1050);
    for (const t of [1000, 1033, 1066]) presenter.push(item(t, t + 10), t + 10);
    const decision = presenter.next(1090);
    expect(decision.show?.picture).toBe(1033);
    expect(decision.drop.map((dropped) => dropped.picture)).toEqual([1000]);
    expect(decision.wakeAt).toBe(1116);
  });

  it("keeps few pictures waiting", () => {
    const presenter = live();
    presenter.setHeard(1000, 1190);
    for (let i = 0; i < 12; i++) presenter.push(item(1000 + i, 1001 + i), 1012);
    const decision = presenter.next(1013);
    expect(decision.drop.length + (decision.show ? 1 : 0)).toBe(12 - Presenter.MAX_PENDING);
  });

  it("shows the first picture of a replay at once, and then only the newest", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(10_000, 0);
    const shown: number[] = [];
    for (let i = 0; i < 60; i++) {
      const now = 20 + i * 3;
      presenter.push(item(8000 + i * 33, now), now);
      const decision = presenter.next(now);
      if (decision.show) shown.push(decision.show.picture);
    }
    // The burst ends with live pictures; at most those within 300 ms of live may be seen.
    expect(shown[0]).toBe(8000);
    expect(shown.slice(1).every((timestamp) => timestamp > 9700)).toBe(true);
    expect(shown.at(-1)).toBe(8000 + 59 * 33);
  });

  it("does not run through a replay whose keyframe came ahead", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(10_000, 0);
    presenter.push(item(2000, 20), 20);
    expect(presenter.next(20).show?.picture).toBe(2000);
    // 8.3 s of deltas, 250 ms later, as fast as they are decoded.
    let shown = 0;
    for (let i = 1; i <= 249; i++) {
      const now = 270 + i * 2;
      presenter.push(item(2000 + i * 33, Math.min(now, 470)), now, 8217 - i * 33);
      if (presenter.next(now).show) shown++;
    }
    expect(shown).toBeLessThanOrEqual(3);
    expect(presenter.isCatchingUp).toBe(false);
  });

  it("lets a source that sends late be seen after its replay", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(10_000, 0);
    const take = (timestamp: number, now: number): boolean => {
      presenter.push(item(timestamp, now), now);
      return presenter.next(now).show !== undefined;
    };
    // A keyframe of 8 s ago, what follows it within 100 ms, then a picture every 33 ms, each 350 ms old.
    expect(take(2000, 0)).toBe(true);
    for (let i = 1; i <= 240; i++) take(2000 + i * 33, 250 + i * 0.4);
    let shown = 0;
    for (let now = 380; now < 2380; now += 33) if (take(10_000 + now - 350, now)) shown++;
    expect(shown).toBeGreaterThan(45);
  });

  it("does not run through what waits in the decoder at the end of a replay, nor waits for it for ever", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(10_000, 0);
    presenter.push(item(9500, 20), 20, 500);
    expect(presenter.next(20).show?.picture).toBe(9500);
    presenter.push(item(9800, 30), 30, 200);
    expect(presenter.next(30).show).toBeUndefined();
    presenter.push(item(9930, 50), 50, 70);
    expect(presenter.next(50).show?.picture).toBe(9930);
    // A device that is too slow: pictures are better late than not at all.
    presenter.expectReplay();
    let first: number | undefined;
    for (let now = 1000; now < 3000; now += 50) {
      presenter.push(item(10_000 + now - 100, now - 60), now, 100);
      if (presenter.next(now).show) first ??= now;
    }
    expect(first).toBe(1000 + Presenter.BEHIND_FOR_MS);
  });

  it("shows the end of a replay although nothing live follows", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(10_000, 0);
    presenter.push(item(2000, 20), 20);
    expect(presenter.next(20).show?.picture).toBe(2000);
    presenter.push(item(2033, 22), 22);
    const last = presenter.next(22);
    expect(last.show).toBeUndefined();
    expect(last.wakeAt).toBe(82);
    expect(presenter.next(82).show?.picture).toBe(2033);
  });

  it("puts no old picture in the place of one that is shown", () => {
    const presenter = live();
    presenter.expectReplay();
    presenter.push(item(1000, 5000), 5000);
    expect(presenter.next(5000)).toMatchObject({ show: undefined, wakeAt: 5060 });
  });

  it("does not go back to an old picture when a replay comes to a halt", () => {
    const presenter = live();
    presenter.push(item(4000, 4010), 4010);
    expect(presenter.next(4010).show?.picture).toBe(4000);
    presenter.expectReplay();
    presenter.push(item(1000, 5000), 5000);
    presenter.next(5000);
    const halted = presenter.next(5060);
    expect(halted.show).toBeUndefined();
    expect(halted.drop.map((dropped) => dropped.picture)).toEqual([1000]);
    presenter.push(item(4033, 5100), 5100);
    expect(presenter.next(5160).show?.picture).toBe(4033);
  });

  it("does not take a slow connection for a replay for ever", () => {
    const presenter = new Presenter<number>();
    presenter.setRoomClock(1000, 0);
    let shown = 0;
    for (let i = 0; i < 30; i++) {
      presenter.push(item(500 + i * 33, i * 33), i * 33);
      if (presenter.next(i * 33).show) shown++;
    }
    expect(shown).toBeGreaterThan(20);
  });
});

describe("freezes", () => {
  it("are pauses of more than three intervals and 150 ms, and hidden time is none", () => {
    const meter = new FreezeMeter();
    for (let t = 0; t <= 330; t += 33) meter.onShown(t);
    meter.onShown(500);
    expect(meter.freezeCount).toBe(0);
    meter.onShown(1000);
    expect([meter.freezeCount, meter.freezeMs]).toEqual([1, 500]);
    meter.pause();
    meter.onShown(9000);
    expect(meter.freezeCount).toBe(1);
  });
});
