// What a page pays that uses little of the library: `RoomError` alone, and `connect`, bundled by Vite as in anybody's project. After `npm run build:lib`
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const library = fileURLToPath(new URL("../dist/lib/index.js", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "wzp-shake-"));
let failed = false;

/** Bundles a line of code. @returns bytes of gzip of the scripts that a page with it loads: its own, and the workers that this one names */
async function bundle(code) {
  const entry = join(folder, "entry.js");
  await writeFile(entry, code);
  const { output } = await build({
    root: folder, configFile: false, logLevel: "error",
    build: { write: false, target: "es2022", modulePreload: false, rollupOptions: { input: entry } },
  });
  const chunks = output.filter(({ type }) => type === "chunk");
  // Vite writes a file for every worker that it has come across, wanted or not.
  const named = output.filter(({ type, fileName }) => type === "asset" && chunks.some(({ code: text }) => text.includes(fileName.split("/").at(-1))));
  const files = [...chunks, ...named];
  const size = files.reduce((sum, file) => sum + gzipSync(file.code ?? file.source, { level: 9 }).length, 0);
  return { size, names: files.map(({ fileName }) => fileName) };
}

function check(what, { size, names }, budget, workers) {
  const bad = size > budget || names.some((name) => /work(?:er|let)/.test(name)) !== workers;
  failed ||= bad;
  console.log(`${String(size).padStart(8)}  ${what} of ${budget}${bad ? `: TOO MUCH, or the wrong files: ${names.join(" ")}` : ""}`);
}

try {
  const use = (names, code) => `import { ${names} } from ${JSON.stringify(library)}; ${code}`;
  check("RoomError alone", await bundle(use("RoomError", "globalThis.a = (e) => e instanceof RoomError;")), 600, false);
  check("connect", await bundle(use("connect", "globalThis.a = connect;")), 60_000, true);
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
