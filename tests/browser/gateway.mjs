// A real gateway and real native members for the tests: processes, started on free ports and ended with the test.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../..', import.meta.url));
export const binary = process.env.WZP_GATEWAY ?? join(repository, 'target/debug/wzp-gateway');

/** A folder that is removed when the test ends. */
export function scratch(t) {
  const folder = mkdtempSync(join(tmpdir(), 'wzp-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Ends a process in an orderly way, and by force after 20 s. */
export async function end(child, signal = 'SIGTERM') {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  const force = setTimeout(() => child.kill('SIGKILL'), 20_000);
  await exited;
  clearTimeout(force);
}

/**
 * Starts a gateway. Answers with where it listens; `url(room, query)` is a page on it.
 * `native` is the address for native apps, if it must be a certain one; `wrap` is put in front of the command line (to run it in a namespace).
 */
export async function startGateway(t, { args = [], host = '127.0.0.1', native = `${host}:0`, tls = false, wrap = [], env = {} } = {}) {
  const state = scratch(t);
  const command = [
    ...wrap, binary, 'serve', '--print-addresses', '--state-dir', state,
    '--http', `${host}:0`, '--native', native, '--webrtc', `${host}:0`, ...(tls ? [] : ['--no-tls']), ...args,
  ];
  const child = spawn(command[0], command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, WZP_LOG: process.env.WZP_LOG ?? 'wzp_gateway=info', ...env },
  });
  const log = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    log.push(line);
    if (process.env.WZP_TEST_VERBOSE) process.stderr.write(`[gateway] ${line}\n`);
  });
  t.after(() => end(child));
  const [first] = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    once(child, 'exit').then(([code]) => { throw new Error(`the gateway ended with ${code}:\n${log.join('\n')}`); }),
  ]);
  const addresses = JSON.parse(first);
  const port = (address) => Number(address.split(':').at(-1));
  return {
    child,
    log,
    ...addresses,
    httpPort: port(addresses.http),
    url: (room, query = {}) => {
      const page = new URL(`${tls ? 'https' : 'http'}://${host === '127.0.0.1' ? 'localhost' : host}:${port(addresses.http)}/${encodeURIComponent(room)}`);
      for (const [key, value] of Object.entries(query)) page.searchParams.set(key, value);
      return page.href;
    },
    stop: (signal) => end(child, signal),
  };
}

/** Starts a stand-in of the existing relay. Answers with where it listens. */
export async function startStandIn(t) {
  const child = spawn(join(dirname(binary), '../debug/relay-stand-in'), { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => end(child));
  const [first] = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    Promise.any([once(child, 'exit'), once(child, 'error')]).then(([why]) => { throw new Error(`the stand-in ended: ${why}`); }),
  ]);
  return { child, ...JSON.parse(first) };
}

/**
 * A native member on the command line. `summary` resolves to its JSON report when it has ended; `leave()` ends it early.
 */
export function joinNative(t, address, room, { seconds = 600, alias = 'native', args = [], wrap = [] } = {}) {
  const command = [...wrap, binary, 'join', address, '--room', room, '--alias', alias, '--seconds', String(seconds), '--json', ...args];
  const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  const errors = [];
  child.stdout.on('data', (data) => { out += data; });
  createInterface({ input: child.stderr }).on('line', (line) => errors.push(line));
  t.after(() => end(child));
  const summary = once(child, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`join ended with ${code}: ${errors.join('\n')}`);
    return JSON.parse(out);
  });
  summary.catch(() => {});
  return { child, errors, summary, leave: async () => { await end(child, 'SIGINT'); return summary; } };
}

/** Waits until `probe` gives something true; fails with what it gave last. */
export async function until(what, probe, { timeout = 15000, every = 100 } = {}) {
  const deadline = Date.now() + timeout;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`waited ${timeout} ms for: ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

/** Lets `ms` pass, where the length itself is what is tested. */
export const pass = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Watches from now on whether this machine gives processes the processor when they want it; what it returns tells. Where it does,
 * delays are judged strictly, and with WZP_STRICT=1 everywhere.
 */
export function watchBusy(t) {
  const late = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    late.push(now - last - 20);
    last = now;
  }, 20);
  t.after(() => clearInterval(timer));
  return () => {
    clearInterval(timer);
    const worst = late.sort((a, b) => a - b)[Math.floor(0.95 * late.length)] ?? Infinity;
    const strict = process.env.WZP_STRICT === '1';
    t.diagnostic(`of a hundred timers the fifth latest is ${worst.toFixed(1)} ms late: ${strict ? 'no matter' : worst > 5 ? 'a busy machine' : 'not busy'}`);
    return worst > 5 && !strict;
  };
}
