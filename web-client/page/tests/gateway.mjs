// A real gateway for the tests of the page; WZP_GATEWAY names its binary.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { onExit } from "./harness.mjs";

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
  const gateway = {
    pid: child.pid,
    base: `http://${JSON.parse(line).http}`,
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
