// The size budget: the whole library, workers and worklets included, in at most 60 kB of gzip; the page in at most 150 kB. Both have to be built.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const files = (folder) => readdirSync(folder).flatMap((name) => (statSync(join(folder, name)).isDirectory() ? files(join(folder, name)) : join(folder, name)));
let failed = false;

function check(folder, wanted, budget) {
  let total = 0;
  const found = existsSync(folder) ? files(folder).filter((name) => wanted.test(name)) : [];
  if (found.length === 0) {
    failed = true;
    return console.log(`${folder}: NOT BUILT; npm run build`);
  }
  for (const file of found) {
    const size = gzipSync(readFileSync(file), { level: 9 }).length;
    total += size;
    console.log(`${String(size).padStart(8)}  ${file}`);
  }
  const over = total > budget;
  failed ||= over;
  console.log(`${String(total).padStart(8)}  ${folder} of ${budget}${over ? ": TOO LARGE" : ""}`);
}

check("dist/lib", /\.js$/, 60_000);
check("dist/page", /\.(js|css|html|svg|webmanifest|json)$/, 150_000);
process.exit(failed ? 1 : 0);
