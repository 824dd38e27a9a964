// A real gateway for the tests of the page; WZP_GATEWAY names its binary.
import { spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { inState, onExit, open } from "./harness.mjs";

export const BINARY = process.env.WZP_GATEWAY;

/** Starts a gateway on free ports; `stop()` ends it. */
export async function startGateway(...flags) {
  const state = mkdtempSync(join(tmpdir(), "wzp-page-"));
  const any = "127.0.0.1:0";
  const child = spawn(BINARY, [...(flags.includes("--http") ? [] : ["--http", any]), "--native", any, "--webrtc", any, "--state-dir", state, "--no-tls", "--print-addresses", ...flags], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the gateway ended with ${code}`)));
  });
  const { http, native } = JSON.parse(line);
  const gateway = {
    pid: child.pid,
    base: `http://${http}`,
    native,
    kill: () => child.kill("SIGKILL"),
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGTERM");
        await ended;
      }
      rmSync(state, { recursive: true, force: true });
    },
  };
  onExit(() => gateway.stop());
  return gateway;
}

/** A member with the native protocol, whose picture is a file; `leave()` ends it. */
export function joinNative(gateway, alias, room, hz, picture) {
  const child = spawn(BINARY, ["join", gateway.native, "--room", room, "--alias", alias, "--audio", `tone:${hz}`, "--video", picture, "--fps", "15"], { stdio: "ignore" });
  const leave = () => child.kill("SIGINT");
  onExit(leave);
  return { leave };
}

/**
 * A second address of a gateway. `tear()` breaks its connections without a goodbye, as a phone does in a tunnel, `cut()` for good; `paths`: what
 * each asked for first.
 */
export async function tunnel(gateway) {
  const sockets = [];
  const paths = [];
  const server = createServer((near) => {
    const far = connect(Number(new URL(gateway.base).port), "127.0.0.1");
    for (const socket of [near, far]) socket.on("error", () => undefined);
    sockets.push(near, far);
    near.once("data", (data) => paths.push(data.toString("latin1").split(" ")[1]));
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const tear = () => {
    for (const socket of sockets.splice(0)) socket.resetAndDestroy();
  };
  const cut = () => {
    server.close();
    tear();
  };
  onExit(cut);
  return { base: `http://127.0.0.1:${server.address().port}`, tear, cut, paths };
}

/** What the page says of itself. */
export const stats = (page) => page.evaluate(() => window.wzp.stats());

/** Waits until `window.wzp.stats()` satisfies a condition given as the text of a function. */
export async function untilStats(page, condition, timeout = 20_000) {
  await page.waitForFunction(`window.wzp.stats().then(${condition})`, undefined, { timeout, polling: 200 });
}

/** Whether the picture of a participant changes within a second or two. */
export async function moves(page, alias) {
  const look = () =>
    page.evaluate((name) => {
      const source = document.querySelector(`.tile canvas[aria-label="${name}"], .tile video[aria-label="${name}"]`);
      const copy = document.createElement("canvas");
      copy.width = 64;
      copy.height = 36;
      const context = copy.getContext("2d");
      context.drawImage(source, 0, 0, 64, 36);
      return [...context.getImageData(0, 0, 64, 36).data].join();
    }, alias);
  const first = await look();
  for (let tries = 0; tries < 20; tries += 1) {
    await page.waitForTimeout(150);
    if ((await look()) !== first) return true;
  }
  return false;
}

/** Opens the page in a browser of the tests and joins a room of a gateway. */
export async function enter(gateway, browser, name, room, more = "", options = {}) {
  const visit = await open(browser, options);
  await visit.page.goto(`${gateway.base}/${room}?name=${name}&autojoin=1${more}`);
  await inState(visit.page, "call");
  return visit;
}
