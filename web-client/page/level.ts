/** What Chromium has and the DOM types do not. */
interface TrackProcessor {
  readonly readable: ReadableStream<AudioData>;
}
type TrackProcessorConstructor = new (init: { track: MediaStreamTrack }) => TrackProcessor;

/**
 * Reports the loudness of a track about 20 times a second, 0–1 on a scale made for the eye (-60 dB to 0 dB).
 * Where the browser lets us read the samples we do so: an AudioContext stays suspended until the person clicks.
 * @returns a function that stops it.
 */
export function watchLevel(track: MediaStreamTrack, report: (level: number) => void): () => void {
  const Processor = (globalThis as { MediaStreamTrackProcessor?: TrackProcessorConstructor }).MediaStreamTrackProcessor;
  return Processor ? watchSamples(new Processor({ track }), report) : watchAnalyser(track, report);
}

/** Linear RMS to 0–1 for a meter. */
export function meterScale(rms: number): number {
  return rms <= 0 ? 0 : Math.min(1, Math.max(0, 1 + (20 * Math.log10(rms)) / 60));
}

function watchSamples(processor: TrackProcessor, report: (level: number) => void): () => void {
  const reader = processor.readable.getReader();
  let stopped = false;
  let shown = 0;
  let lastReport = 0;
  const read = async (): Promise<void> => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (stopped) {
        value.close();
        return;
      }
      shown = Math.max(rmsOf(value), shown * 0.8);
      value.close();
      const now = performance.now();
      if (now - lastReport < 50) continue;
      lastReport = now;
      report(meterScale(shown));
    }
  };
  read().catch(() => report(0));
  return () => {
    stopped = true;
    reader.cancel().catch(() => undefined);
  };
}

function rmsOf(data: AudioData): number {
  const samples = new Float32Array(data.numberOfFrames);
  data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
  return rms(samples);
}

function rms(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}

function watchAnalyser(track: MediaStreamTrack, report: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const wake = (): void => void context.resume();
  document.addEventListener("pointerdown", wake, { once: true });
  document.addEventListener("keydown", wake, { once: true });
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    report(meterScale(rms(samples)));
  }, 50);
  return () => {
    clearInterval(timer);
    document.removeEventListener("pointerdown", wake);
    document.removeEventListener("keydown", wake);
    context.close().catch(() => undefined);
  };
}

/** Moves a meter of the page. */
export function showLevel(meter: HTMLElement, level: number): void {
  meter.style.setProperty("--level", level.toFixed(3));
  const percent = String(Math.round(level * 100));
  if (meter.getAttribute("aria-valuenow") !== percent) meter.setAttribute("aria-valuenow", percent);
}
