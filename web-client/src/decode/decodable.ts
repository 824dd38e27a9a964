/** A configuration of each video codec that everybody who can decode it at all can decode: 720p, 8 bit. */
const VIDEO = { h264: "avc1.42E01F", av1: "av01.0.05M.08" } as const;
/** A browser that does not answer in this time is believed to decode; a decoder that then fails says so itself. */
const ANSWER_MS = 2000;

/** What this browser claims to decode by having the interfaces. */
export function claimedCodecs(): string[] {
  const sound = typeof AudioDecoder === "undefined" ? [] : ["opus"];
  return typeof VideoDecoder === "undefined" ? sound : [...sound, ...Object.keys(VIDEO)];
}

/** What this browser decodes, by its own word: a `VideoDecoder` alone does not mean that every codec was built in. */
export async function decodableCodecs(): Promise<string[]> {
  const claimed = claimedCodecs();
  const answers = await Promise.all(claimed.map((codec) => (codec === "h264" || codec === "av1" ? isDecodable(VIDEO[codec]) : Promise.resolve(true))));
  return claimed.filter((_, index) => answers[index]);
}

async function isDecodable(codec: string): Promise<boolean> {
  const answer = VideoDecoder.isConfigSupported({ codec, codedWidth: 1280, codedHeight: 720, optimizeForLatency: true }).then(({ supported }) => supported !== false);
  const late = new Promise<boolean>((resolve) => setTimeout(() => resolve(true), ANSWER_MS));
  return Promise.race([answer, late]).catch(() => false);
}
