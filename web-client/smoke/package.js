// What a developer does with the package: packs it, installs the file into an empty project, compiles the code of the README against its types,
// builds the example with Vite, and two people meet in it. `node smoke/package.js`, after `npm run build:lib`
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "vite";
import { launch, until, watch } from "./browsers.js";
import { serveRoom } from "./gateway.js";

const here = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
const project = await mkdtemp(join(tmpdir(), "wzp-package-"));
let failed = false;
const check = (name, passed, detail = "") => {
  failed ||= !passed;
  console.log(`${passed ? "ok  " : "FAIL"} ${name} ${detail}`);
};

const closing = [];
try {
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", project], { cwd: here });
  const [{ filename, files }] = JSON.parse(stdout);
  const packed = files.map(({ path }) => path);
  const wanted = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "examples/join.html", "examples/listen.mjs", "dist/lib/index.js", "dist/lib/index.d.ts"];
  check("the package has what it should", wanted.every((path) => packed.includes(path)), `${packed.length} files`);
  check("and nothing of the sources and tests", !packed.some((path) => /^(src|page|smoke|scripts)\/|\.test\./.test(path)), packed.filter((path) => !path.startsWith("dist/")).join(" "));

  await writeFile(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }));
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", join(project, filename)], { cwd: project });
  const installed = join(project, "node_modules/@wzp/client");

  const readme = await readFile(join(installed, "README.md"), "utf8");
  const code = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "the README has no code";
  await writeFile(join(project, "readme.ts"), code);
  const types = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable"];
  const compiled = await run("node", [join(here, "node_modules/typescript/bin/tsc"), ...types, "readme.ts"], { cwd: project }).catch((error) => error);
  check("the code of the README compiles against the package's types", !(compiled instanceof Error), compiled instanceof Error ? compiled.stdout : "");

  await copyFile(join(installed, "examples/join.html"), join(project, "index.html"));
  await build({ root: project, configFile: false, logLevel: "warn", build: { target: "es2022" } });
  check("the example builds with Vite, workers included", (await readdir(join(project, "dist/assets"))).some((name) => name.includes("worker")));

  const kinds = { ".js": "text/javascript", ".html": "text/html" };
  const missing = [];
  const server = createServer(async ({ url }, response) => {
    const path = new URL(url, "http://x").pathname;
    if (path === "/favicon.ico") return response.writeHead(204).end();
    const body = await readFile(join(project, "dist", path === "/" ? "index.html" : path)).catch(() => undefined);
    if (!body) missing.push(path);
    response.writeHead(body ? 200 : 404, { "content-type": kinds[extname(path)] ?? "text/html" }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => server.close());
  serveRoom(server);
  const origin = `localhost:${server.address().port}`;
  const people = [];
  for (const alias of ["Ana", "Bo"]) {
    const { browser, page } = await launch("chromium");
    closing.push(() => browser.close());
    const problems = watch(page);
    await page.goto(`http://${origin}/`);
    await page.fill("[name=url]", `ws://${origin}/ws/team`);
    await page.fill("[name=alias]", alias);
    await page.click("text=Join");
    people.push({ page, problems });
  }
  for (const { page, problems } of people) {
    const tiles = () => page.evaluate(() => [...document.querySelectorAll("#tiles video, #tiles canvas")].filter((each) => (each.videoWidth ?? each.width) > 300).length);
    await until(async () => (await tiles()) === 2, 15_000, "a picture of one's own and one of the other");
    const status = await page.textContent("[role=status]");
    check("people meet in the example", /connected: .*Ana.*Bo/.test(status), status);
    check("without errors in the console", problems.length === 0, [...problems, ...missing].join(" | "));
  }
  await people[1].page.click("text=Leave");
  await until(async () => (await people[0].page.evaluate(() => document.querySelectorAll("#tiles canvas").length)) === 0, 5000, "the tile of the one who left to go");
  check("and see each other leave", true);
} finally {
  for (const close of closing.reverse()) await close();
  await rm(project, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
