/** What the page remembers from visit to visit. */
export interface Memory {
  name: string;
  audioinput: string;
  videoinput: string;
  audiooutput: string;
  /** `off`: join muted. */
  microphone: string;
  /** `off`: join without picture. */
  camera: string;
  /** `off`: the keys m and v do nothing. */
  keys: string;
  /** `off`: all tiles are equally large. */
  speakerView: string;
}

/** Reads something remembered; empty if there is nothing, or the browser keeps nothing. */
export function recall(key: keyof Memory): string {
  try {
    return localStorage.getItem(`wzp.${key}`) ?? "";
  } catch {
    return "";
  }
}

/** Remembers something; browsers that refuse are not an error. */
export function remember(key: keyof Memory, value: string): void {
  try {
    localStorage.setItem(`wzp.${key}`, value);
  } catch {
    // Private windows may refuse; the page works without.
  }
}
