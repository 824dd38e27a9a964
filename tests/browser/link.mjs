// A link with delay, loss and a rate between two network namespaces (tests/lossy-link), and what is needed behind it.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { end, repository, scratch, until } from './gateway.mjs';

let links = 0;

/** Two namespaces with a link between them; `set('rate=400')` changes it while it runs. */
export async function lossyLink(t, ...options) {
  const folder = scratch(t);
  links += 1;
  const [near, far] = [`n${process.pid}x${links}`, `f${process.pid}x${links}`];
  const ready = join(folder, 'ready');
  const child = spawn(join(repository, 'tests/lossy-link'), [
    '--near-name', near, '--far-name', far, ...options, '--', 'sh', '-c', `echo "$LOSSY_LINK" > ${ready}.new; mv ${ready}.new ${ready}; exec sleep 3600`,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  const closed = once(child, 'close').catch(() => {});
  let report = '';
  child.stderr.on('data', (data) => { report += data; });
  t.after(() => end(child));
  await until('the link', () => existsSync(ready) || (child.exitCode !== null && Promise.reject(new Error(report))));
  const socket = readFileSync(ready, 'utf8').trim();
  // A browser behind the link: a script that starts it in the far namespace.
  const script = join(folder, 'chromium');
  writeFileSync(script, `#!/bin/sh\nexec ip netns exec ${far} /usr/bin/chromium "$@"\n`);
  chmodSync(script, 0o755);
  const nearScript = join(folder, 'chromium-near');
  writeFileSync(nearScript, `#!/bin/sh\nexec ip netns exec ${near} /usr/bin/chromium "$@"\n`);
  chmodSync(nearScript, 0o755);
  return {
    near: ['ip', 'netns', 'exec', near],
    far: ['ip', 'netns', 'exec', far],
    host: '10.77.0.1',
    chromium: script,
    nearChromium: nearScript,
    set: (line) => execFileSync('nc', ['-N', '-U', socket], { input: `${line}\n` }),
    /** The far side has another address from now on. */
    move: (address) => {
      const [device] = execFileSync('ip', ['-n', far, '-o', '-4', 'addr', 'show', 'scope', 'global'], { encoding: 'utf8' }).trim().split('\n').map((line) => line.split(/\s+/));
      // The other order would lose both: an address in the same network goes with the first.
      execFileSync('ip', ['-n', far, 'addr', 'del', device[3], 'dev', device[1]]);
      execFileSync('ip', ['-n', far, 'addr', 'add', address, 'dev', device[1]]);
    },
    stop: async () => { await end(child); await closed; return report; },
  };
}
