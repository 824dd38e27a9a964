/** Changes the sampling rate of a continuous sound by linear interpolation: enough for a voice, which has little near the limits. */
export class Resampler {
  readonly #step: number;
  /** Position of the next output sample, relative to the first sample of the next input. */
  #position = 0;
  #last = 0;

  constructor(
    readonly from: number,
    readonly to: number,
  ) {
    this.#step = from / to;
  }

  process(input: Float32Array): Float32Array {
    if (this.from === this.to) return input;
    const count = Math.max(0, Math.ceil((input.length - 1 - this.#position) / this.#step));
    const output = new Float32Array(count);
    let position = this.#position;
    for (let i = 0; i < count; i++) {
      const whole = Math.floor(position);
      const before = whole < 0 ? this.#last : (input[whole] ?? 0);
      const after = input[whole + 1] ?? 0;
      output[i] = before + (after - before) * (position - whole);
      position += this.#step;
    }
    this.#position = position - input.length;
    this.#last = input[input.length - 1] ?? this.#last;
    return output;
  }
}
