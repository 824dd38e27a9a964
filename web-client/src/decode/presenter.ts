import { REPLAY_AGE_MS } from "../media/clock.js";

/** A decoded picture on its way to the canvas. */
export interface Pending<T> {
  /** Room clock, ms, unwrapped. */
  timestamp: number;
  /** When its last piece arrived, local ms. */
  arrived: number;
  picture: T;
}

export interface Decision<T> {
  /** To be drawn now. */
  show: Pending<T> | undefined;
  /** Never to be drawn: too late, or overtaken. */
  drop: Pending<T>[];
  /** When to ask again, local ms. */
  wakeAt: number | undefined;
}

/**
 * Decides when each decoded picture of a track is shown: together with the sound of its participant if there is any, else at once; of a
 * catch-up burst only the newest, and the very first if there is no picture yet; never for the sound's sake later than 200 ms after it arrived.
 */
export class Presenter<T> {
  /** Longest wait for the sound, ms. */
  static readonly MAX_WAIT_MS = 200;
  /** The same for the first live picture after a replay, ms, from where it grows by so much per ms: sound that a join made late gets over it meanwhile. */
  static readonly FIRST_WAIT_MS = 40;
  static readonly WAIT_GROWTH = 0.16;
  /** Sound that was heard last so long ago has stopped, and says nothing about now, ms. */
  static readonly HEARD_FOR_MS = 500;
  /** The same for sound by WebRTC, which is told of twice a second, ms. */
  static readonly HEARD_ELSEWHERE_FOR_MS = 1500;
  /** Browsers hold sound by WebRTC back for longer at first: pictures follow from no wait at all, by so much per ms. */
  static readonly HEARD_ELSEWHERE_GROWTH = 0.03;
  /** Pictures waiting at one time: decoders have few to give away. */
  static readonly MAX_PENDING = 6;
  /** A burst is over when nothing newer has come for this long, ms. */
  static readonly QUIET_MS = 60;
  /** A burst is not over while the decoder has more than this of it yet, ms, */
  static readonly BEHIND_MS = 70;
  /** unless it has had so long: a decoder may be that late for good, ms. */
  static readonly BEHIND_FOR_MS = 200;
  /** Whether old pictures are a burst is judged so often, ms. */
  static readonly JUDGE_MS = 200;
  /** A keyframe that goes ahead of its replay is followed by nothing for longer than this, ms. */
  static readonly HALT_MS = 100;

  #pending: Pending<T>[] = [];
  #heardOffset: number | undefined;
  #heardUntil = -Infinity;
  #roomOffset: number | undefined;
  #catchingUp = true;
  /** Nothing was shown yet: an old picture is better than none. */
  #blank = true;
  /** Timestamp of the last picture that was shown. */
  #shown = -Infinity;
  /** How old pictures were when that was judged last. */
  #judged: { at: number; age: number; afterHalt: boolean } | undefined;
  #lastArrived = 0;
  /** Since when young pictures come out of the decoder, behind which more of the burst waits. */
  #youngSince: number | undefined;
  /** When the first live picture arrived. */
  #liveSince = 0;
  /** Since when there is sound by WebRTC to wait for. */
  #waitSince = -Infinity;
  #candidate: { item: Pending<T>; since: number } | undefined;

  /** Room clock: `timestamp` is now. */
  setRoomClock(timestamp: number, now: number): void {
    this.#roomOffset = now - timestamp;
  }

  /** The participant's sound with this timestamp is heard at `at`; `elsewhere`: which is now, by WebRTC, and told less often. */
  setHeard(timestamp: number, at: number, elsewhere = false): void {
    const offset = at - timestamp;
    if (elsewhere && (this.#heardOffset === undefined || at > this.#heardUntil)) this.#waitSince = at;
    // Reports jitter by a few ms, and so would the picture.
    this.#heardOffset = this.#heardOffset === undefined || Math.abs(offset - this.#heardOffset) > 100 ? offset : this.#heardOffset + (offset - this.#heardOffset) * 0.2;
    this.#heardUntil = at + (elsewhere ? Presenter.HEARD_ELSEWHERE_FOR_MS : Presenter.HEARD_FOR_MS);
  }

  /** The sound that goes with the pictures comes from elsewhere now. */
  setUnheard(): void {
    this.#heardOffset = undefined;
  }

  /** What comes is older than what is live. */
  get isCatchingUp(): boolean {
    return this.#catchingUp;
  }

  /** A burst may follow: the track begins, or begins again after a gap. */
  expectReplay(): void {
    this.#catchingUp = true;
    this.#judged = undefined;
    this.#youngSince = undefined;
  }

  /** @param behind how much has come that is newer than this picture and not decoded yet, ms */
  push(item: Pending<T>, now: number, behind = 0): void {
    this.#pending.push(item);
    if (this.#catchingUp && !this.#isReplay(item)) {
      this.#youngSince ??= now;
      this.#catchingUp = behind > Presenter.BEHIND_MS && now - this.#youngSince < Presenter.BEHIND_FOR_MS;
      this.#liveSince = item.arrived;
    }
    this.#lastArrived = item.arrived;
    if (this.#candidate || this.#catchingUp) this.#candidate = { item, since: now };
  }

  next(now: number): Decision<T> {
    const decision = this.#catchingUp ? this.#newestOnly(now) : this.#inTime(now);
    if (decision.show) this.#shown = decision.show.timestamp;
    return decision;
  }

  /** Gives back all that waits. */
  clear(): Pending<T>[] {
    const all = this.#pending;
    this.#pending = [];
    this.#candidate = undefined;
    return all;
  }

  #isReplay(item: Pending<T>): boolean {
    if (this.#roomOffset === undefined) return false;
    const age = item.arrived - this.#roomOffset - item.timestamp;
    if (age < REPLAY_AGE_MS) return false;
    // What follows a keyframe that was sent ahead comes all the faster.
    const halted = item.arrived - this.#lastArrived > Presenter.HALT_MS;
    if (!this.#judged || (halted && !this.#judged.afterHalt)) this.#judged = { at: item.arrived, age, afterHalt: this.#judged !== undefined };
    const { at, age: before } = this.#judged;
    const elapsed = item.arrived - at;
    if (elapsed < Presenter.JUDGE_MS) return true;
    // While it catches up, pictures get younger as fast as they come. If they do not, it is just a slow connection, or a source
    // that sends late.
    const younger = before - age > elapsed / 2;
    if (younger) this.#judged = { ...this.#judged, at: item.arrived, age };
    return younger;
  }

  #newestOnly(now: number): Decision<T> {
    const newest = this.#pending.pop();
    const drop = this.#pending;
    this.#pending = [];
    if (!newest) return { show: undefined, drop, wakeAt: undefined };
    if (this.#blank) {
      this.#blank = false;
      this.#candidate = undefined;
      return { show: newest, drop, wakeAt: undefined };
    }
    const since = this.#candidate?.since ?? now;
    if (now - since >= Presenter.QUIET_MS) {
      this.#candidate = undefined;
      if (newest.timestamp >= this.#shown) return { show: newest, drop, wakeAt: undefined };
      // What is on the screen is newer than a replay that has come to a halt on its way.
      return { show: undefined, drop: [...drop, newest], wakeAt: undefined };
    }
    this.#pending = [newest];
    return { show: undefined, drop, wakeAt: since + Presenter.QUIET_MS };
  }

  #inTime(now: number): Decision<T> {
    this.#candidate = undefined;
    this.#blank = false;
    let show: Pending<T> | undefined;
    const drop: Pending<T>[] = [];
    while (this.#pending.length > 0) {
      const first = this.#pending[0];
      if (!first) break;
      const due = this.#dueAt(first);
      // Half a ms of early waking is not worth another timer.
      if (due > now + 0.5 && this.#pending.length <= Presenter.MAX_PENDING) return { show, drop, wakeAt: due };
      this.#pending.shift();
      if (show) drop.push(show);
      show = first;
    }
    return { show, drop, wakeAt: undefined };
  }

  #dueAt(item: Pending<T>): number {
    if (this.#heardOffset === undefined || item.arrived > this.#heardUntil) return item.arrived;
    const soon = Presenter.FIRST_WAIT_MS + Math.max(0, item.arrived - this.#liveSince) * Presenter.WAIT_GROWTH;
    const wait = Math.min(Presenter.MAX_WAIT_MS, soon, Math.max(0, item.arrived - this.#waitSince) * Presenter.HEARD_ELSEWHERE_GROWTH);
    return Math.min(item.timestamp + this.#heardOffset, item.arrived + wait);
  }
}

/** Counts freezes as WebRTC does: a picture stands for more than three times the average, and at least 150 ms more than it. */
export class FreezeMeter {
  freezeMs = 0;
  freezeCount = 0;
  #last: number | undefined;
  #average = 33;

  onShown(now: number): void {
    if (this.#last !== undefined) {
      const interval = now - this.#last;
      if (interval > Math.max(3 * this.#average, this.#average + 150)) {
        this.freezeCount++;
        this.freezeMs += interval;
      } else {
        this.#average += (interval - this.#average) * 0.1;
      }
    }
    this.#last = now;
  }

  /** Nothing is expected for a while (hidden, muted): the pause is no freeze. */
  pause(): void {
    this.#last = undefined;
  }
}
