import type { Capture } from "./capture.js";
import workletUrl from "../workers/audio.worklet.ts?worker&url";

/** Reads a sound track through the audio graph. */
export async function captureSound(track: MediaStreamTrack, playing: AudioContext): Promise<Capture> {
  const stream = new MediaStream([track]);
  let context = playing;
  let source: MediaStreamAudioSourceNode;
  try {
    source = context.createMediaStreamSource(stream);
  } catch {
    // Some browsers cannot change the rate on the way in; then the device's own rate it is, and the sender changes it.
    context = new AudioContext();
    source = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule(workletUrl);
  const node = new AudioWorkletNode(context, "wzp-capture", { numberOfInputs: 1, numberOfOutputs: 0 });
  const channel = new MessageChannel();
  node.port.postMessage({ port: channel.port1 }, [channel.port1]);
  source.connect(node);
  void context.resume().catch(() => undefined);
  return {
    feed: { road: "port", port: channel.port2 },
    transfer: [channel.port2],
    stop: () => {
      node.port.postMessage({ end: true });
      source.disconnect();
      if (context !== playing) void context.close().catch(() => undefined);
    },
  };
}
