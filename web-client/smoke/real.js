// The built package against a real gateway: `WZP_GATEWAY=path node smoke/real.js [chromium|firefox] [chromium|firefox]`
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { launch, servePage, sleep, until, watch } from "./browsers.js";

const [first = "chromium", second = "chromium", transport = "websocket"] = process.argv.slice(2);
const { server, url, handlers } = await servePage();
const state = await mkdtemp(join(tmpdir(), "wzp-smoke-"));
const gateway = spawn(
  process.env.WZP_GATEWAY,
  ["serve", "--print-addresses", "--no-tls", "--http", "127.0.0.1:0", "--native", "127.0.0.1:0", "--webrtc", "127.0.0.1:0", "--state-dir", state, "--log", process.env.WZP_LOG ?? "warn"],
  { stdio: ["ignore", "pipe", "inherit"] },
);
const line = await new Promise((resolve) => createInterface({ input: gateway.stdout }).once("line", resolve));
const [host, port] = JSON.parse(line).http.split(":");

// The page and the gateway share an origin, as they do in real life; what goes through here can be cut.
const pairs = new Set();
server.on("upgrade", (request, inside, head) => {
  const outside = connect(Number(port), host);
  const pair = [inside, outside];
  pairs.add(pair);
  const headers = request.rawHeaders.flatMap((value, i, all) => (i % 2 === 0 ? [`${value}: ${all[i + 1]}`] : []));
  outside.write([`GET ${request.url} HTTP/1.1`, ...headers, "", ""].join("\r\n"));
  outside.write(head);
  for (const socket of pair) {
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    socket.on("close", () => {
      pairs.delete(pair);
      pair.forEach((other) => other.destroy());
    });
  }
  inside.pipe(outside).pipe(inside);
});
handlers.push(async (request, response) => {
  if (!request.url.startsWith("/ws/")) return false;
  const answer = await fetch(`http://${host}:${port}${request.url}`);
  response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "text/plain" });
  response.end(await answer.text());
  return true;
});
const room = `${url.replace("http", "ws")}ws/smoke`;

let failed = false;
const check = (name, passed, detail = "") => {
  failed ||= !passed;
  console.log(`${passed ? "ok  " : "FAIL"} ${name} ${detail}`);
};
const open = async (which, options) => {
  const { page, browser } = await launch(which);
  const problems = watch(page);
  await page.goto(url);
  await page.waitForFunction(() => "smoke" in window);
  const started = Date.now();
  await page.evaluate((o) => window.smoke.start(o), { url: room, id: `smoke-${options.name}-0123456789`, transport, ...options });
  return { page, browser, problems, name: options.name, hz: options.hz, started };
};
const stats = (peer) => peer.page.evaluate(() => window.room.stats());
const figures = (source) => source && `${source.codec} ${source.width}x${source.height} packets ${source.packets} lost ${source.lost} decoded ${source.framesDecoded} dropped ${source.framesDropped} first ${source.firstFrameMs} ms, freezes ${source.freezeCount}, ${Math.round(source.bitrate / 1000)} kbit/s, delay ${Math.round(source.delayMs)} ms, ${Math.round(source.dominantHz * 10) / 10} Hz`;
async function hearsAndSees(peer, other, what) {
  await until(async () => {
    const { sources } = await stats(peer);
    const heard = sources.find((source) => source.alias === other.name && source.kind === "audio");
    const seen = sources.find((source) => source.alias === other.name && source.kind === "video");
    return heard && seen && Math.abs(heard.dominantHz - other.hz) < 2 && seen.framesDecoded > 10;
  }, 10_000, `${peer.name} hears and sees ${other.name}`).catch((error) => check(what, false, String(error)));
  const before = await peer.page.evaluate(() => window.smoke.pixels());
  await sleep(500);
  const after = await peer.page.evaluate(() => window.smoke.pixels());
  const { sources, transport: used, joinMs, rttMs, transportReason } = await stats(peer);
  const of = (kind) => sources.find((source) => source.alias === other.name && source.kind === kind);
  check(what, before.some((value, i) => Math.abs(value - after[i]) > 8) && Math.abs((of("audio")?.dominantHz ?? 0) - other.hz) < 2, `${used} (${transportReason}), join ${joinMs} ms, rtt ${rttMs} ms`);
  console.log(`       video ${figures(of("video"))}\n       audio ${figures(of("audio"))}`);
}

const browsers = [];
try {
  const ana = await open(first, { name: "Ana", hz: 440 });
  browsers.push(ana.browser);
  await sleep(3000);
  const bob = await open(second, { name: "Bob", hz: 700 });
  browsers.push(bob.browser);
  await hearsAndSees(bob, ana, "the late joiner hears and sees");
  await hearsAndSees(ana, bob, "the first one hears and sees the late joiner");

  for (const pair of pairs) pair[0].destroy();
  await sleep(300);
  await until(async () => (await ana.page.evaluate(() => window.room.state)) === "connected", 5000, "reconnected");
  await sleep(1500);
  const events = await ana.page.evaluate(() => window.smoke.events);
  check("a cut connection is resumed without a leave", events.some((e) => e[0] === "state" && e[1] === "reconnecting") && !events.some((e) => e[0] === "participantleft"), JSON.stringify(events));
  await hearsAndSees(bob, ana, "after the cut Bob hears and sees Ana");
  await hearsAndSees(ana, bob, "after the cut Ana hears and sees Bob");

  const decoded = async () => (await stats(bob)).sources.find((source) => source.alias === "Ana" && source.kind === "video")?.framesDecoded ?? 0;
  const grows = async (what, expected) => {
    await sleep(700);
    const before = await decoded();
    await sleep(1000);
    const after = await decoded();
    check(what, expected ? after > before + 5 : after <= before + 1, `${before} -> ${after} pictures`);
  };
  await bob.page.evaluate(() => window.smoke.other().tracks.find((track) => track.kind === "video").setVisible(false));
  await grows("a hidden tile gets no pictures", false);
  await bob.page.evaluate(() => window.smoke.other().tracks.find((track) => track.kind === "video").setVisible(true));
  await grows("and gets them again when it is shown", true);
  await ana.page.evaluate(() => window.smoke.publications[0].mute(true));
  await grows("a muted camera sends nothing", false);
  await ana.page.evaluate(() => window.smoke.publications[0].mute(false));
  await grows("and sends again", true);
  await ana.page.evaluate(() => window.smoke.devices());
  await grows("another camera goes on in the same track", true);
  await until(async () => (await stats(bob)).sources.some((source) => source.alias === "Ana" && source.kind === "video" && Math.abs(source.width / source.height - 4 / 3) < 0.02), 5000, "the new camera's shape").catch((error) => check("the new camera's shape", false, String(error)));
  await until(async () => (await stats(bob)).sources.some((source) => source.alias === "Ana" && source.kind === "audio" && source.audioLevel > 0.001), 5000, "the new microphone").catch((error) => check("the new microphone", false, String(error)));
  await ana.page.evaluate(() => window.smoke.publications[1].mute(true));
  await until(() => bob.page.evaluate(() => [...window.room.participants.values()].some((p) => !p.isLocal && p.muted.audio)), 2000, "mute is seen");
  check("mute is seen by the other", true);

  await ana.page.evaluate(() => window.smoke.publications[0].stop());
  await until(() => bob.page.evaluate(() => window.smoke.other().tracks.every((track) => track.kind === "audio")), 2000, "the end of a track").then(() => check("a stopped track ends for the other", true), (error) => check("a stopped track ends for the other", false, String(error)));

  const leftAt = Date.now();
  await ana.page.goto("about:blank");
  await until(() => bob.page.evaluate(() => window.smoke.events.some((e) => e[0] === "participantleft")), 3000, "leave is seen").catch((error) => check("closing the page is seen", false, String(error)));
  check("closing the page is seen", true, `${Date.now() - leftAt} ms`);
  check("no errors in the console", bob.problems.length + ana.problems.filter((p) => !/WebSocket|establish/i.test(p)).length === 0, [...ana.problems, ...bob.problems].join(" | "));

  const refused = await bob.page.evaluate((at) => window.smoke.refused(at), room.replace("/ws/smoke", "/ws/_secret"));
  check("a reserved room is refused with its code", refused === "bad_room", refused);
} catch (error) {
  check("run", false, String(error));
} finally {
  for (const browser of browsers) await browser.close();
  gateway.kill("SIGTERM");
  server.close();
  await rm(state, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
