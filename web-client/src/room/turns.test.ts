import { describe, expect, it } from "vitest";
import { Turns } from "./turns.js";

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

describe("work in turns", () => {
  it("that can wait is done after the release, in order, and at once when nothing holds it", async () => {
    const turns = new Turns();
    const done: string[] = [];
    turns.hold();
    turns.addLater(() => done.push("later 1"));
    turns.add(() => done.push("now"));
    turns.addLater(() => done.push("later 2"));
    await turn();
    expect(done).toEqual(["now"]);
    turns.release();
    await turn();
    expect(done).toEqual(["now", "later 1", "later 2"]);
    turns.addLater(() => done.push("later 3"));
    turns.release();
    await turn();
    expect(done.at(-1)).toBe("later 3");
    turns.close();
  });

  it("is forgotten when all is over, what waits too", async () => {
    const turns = new Turns();
    const done: string[] = [];
    turns.hold();
    turns.addLater(() => done.push("later"));
    turns.close();
    turns.release();
    await turn();
    expect(done).toEqual([]);
  });
});
