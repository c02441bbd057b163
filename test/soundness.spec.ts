import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';

const script = join(import.meta.dirname, '..', 'scripts', 'soundness.mjs');

interface Result {
  readonly sound: boolean;
  readonly faults: Readonly<Record<string, number>>;
  readonly lostReplies: Readonly<Record<string, number>>;
}

// The long form is `npm run soundness`: 100,000 records and 100 kills.
it('three workers give exactly f(input) under kills, pauses, a dying broker and lost replies', async () => {
  const seed = String(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const args = [script, '--seed', seed, '--records', '1500', '--kills', '2', '--lost', '20'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += String(chunk)));
  child.stderr.on('data', (chunk: Buffer) => (said += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`soundness ended with ${code}:\n${said}`);
  const result = JSON.parse(out) as Result;
  expect(result).toMatchObject({ sound: true, faults: { kill: 2, pause: 2, brokerKill: 1, blackOut: 1 } });
  expect(result.lostReplies['EndTxn']).toBeGreaterThanOrEqual(20);
}, 240_000);
