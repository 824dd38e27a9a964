import { make, svg } from "./dom.js";

const LENGTH = 60;
const HEIGHT = 30;

/** A small chart of the last minute with its newest value in figures. It remembers while nobody looks, and is drawn when somebody does. */
export class Chart {
  readonly element = make("div", "chart");
  private readonly value = make("span", "value", "–");
  private readonly line = svg("polyline", { points: "" });
  private readonly values: number[] = [];
  private text = "–";

  /** `floor`: the least top of the scale, so that noise about nothing does not look like much. */
  constructor(
    what: string,
    kind: "rate" | "delay" | "bad",
    private readonly floor: number,
  ) {
    this.element.dataset.kind = kind;
    const picture = svg("svg", { viewBox: `0 0 ${LENGTH - 1} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    picture.append(this.line);
    this.element.append(make("span", "what", what), this.value, picture);
  }

  /** One more second, with its value in words. */
  add(value: number, text: string): void {
    this.values.push(Number.isFinite(value) ? value : 0);
    if (this.values.length > LENGTH) this.values.shift();
    this.text = text;
  }

  draw(): void {
    this.line.setAttribute("points", chartPoints(this.values, this.floor));
    if (this.value.textContent !== this.text) this.value.textContent = this.text;
  }
}

/** The corners of a line for values of one second each, the newest at the right edge, the largest (or `floor`) at the top. */
export function chartPoints(values: readonly number[], floor: number): string {
  const top = Math.max(floor, ...values);
  // The first seconds fill the chart sooner than the later ones.
  const step = (LENGTH - 1) / (Math.max(20, values.length) - 1);
  const first = LENGTH - 1 - (values.length - 1) * step;
  return values.map((each, index) => `${(first + index * step).toFixed(1)},${(HEIGHT - 1 - (each / top) * (HEIGHT - 2)).toFixed(1)}`).join(" ");
}
