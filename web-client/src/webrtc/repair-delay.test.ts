import { describe, expect, it } from "vitest";
import { RepairDelay } from "./repair-delay.js";

describe("the delay for repair", () => {
  it("is the browser's own while nothing is lost", () => {
    const delay = new RepairDelay();
    for (let second = 1; second <= 10; second++) expect(delay.next(second * 100, 0, 100, second * 1000)).toBeNull();
  });

  it("leaves room for two round trips while packets are lost, and for a while after that", () => {
    const delay = new RepairDelay();
    delay.next(100, 0, 100, 1000);
    expect(delay.next(195, 5, 100, 2000)).toBe(260);
    expect(delay.next(295, 5, 110, 3000)).toBe(260);
    expect(delay.next(395, 5, 180, 4000)).toBe(400);
    expect(delay.next(2000, 5, 180, 16_900)).toBe(400);
    expect(delay.next(2100, 5, 180, 17_000)).toBeNull();
  });

  it("grows in small steps, and shrinks at once", () => {
    const steps: (number | null)[] = [];
    let held: number | null = null;
    while (held !== 130) steps.push((held = RepairDelay.toward(130, held)));
    expect(steps).toEqual([80, 100, 120, 130]);
    expect(RepairDelay.toward(100, 260)).toBe(100);
    expect(RepairDelay.toward(null, 260)).toBeNull();
  });
});
