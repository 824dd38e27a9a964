/** What a browser tells of a presented picture (HTML, `VideoFrameCallbackMetadata`), as far as it is needed here. */
export interface Presented {
  presentedFrames: number;
  /** When the encoded picture had arrived, ms; not every browser tells. */
  receiveTime?: number;
}

/**
 * Tells when a video by WebRTC shows what is live. Before it comes the replay, faster than the eye can follow, while the canvas
 * shows live pictures by the other road. Those of a replay arrive at one moment, live ones one by one.
 */
export class ReplayWatch {
  /** Live pictures arrive at least so far apart, ms. */
  static readonly APART_MS = 12;
  /** What follows a still after a longer pause may be the rest of the replay, ms. */
  static readonly PAUSE_MS = 220;
  /** By then whatever comes is shown: the other road will have ended, ms. */
  static readonly MOST_MS = 1500;
  /** When nothing follows for so long it is all that there is, a still or the end of a short replay, ms. */
  static readonly QUIET_MS = 350;

  #since: number | undefined;
  #last: Required<Presented> | undefined;
  #apart = 0;

  /** A picture is presented at `now`, ms. @returns whether it is live, as far as one can tell */
  presented(now: number, { presentedFrames, receiveTime }: Presented): boolean {
    this.#since ??= now;
    if (receiveTime === undefined || now - this.#since >= ReplayWatch.MOST_MS) return true;
    const last = this.#last;
    this.#last = { presentedFrames, receiveTime };
    if (!last) return false;
    const gap = receiveTime - last.receiveTime;
    // Between two that were left out, nobody knows.
    const apart = gap >= ReplayWatch.APART_MS && presentedFrames === last.presentedFrames + 1;
    this.#apart = apart ? this.#apart + 1 : 0;
    return apart && (gap <= ReplayWatch.PAUSE_MS || this.#apart > 1);
  }
}
