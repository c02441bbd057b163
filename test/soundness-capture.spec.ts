import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';

const script = join(import.meta.dirname, '..', 'scripts', 'soundness-capture.mjs');
const KILLS = 15;

interface Result {
  readonly sound: boolean;
  readonly kills: Readonly<Record<string, number>>;
  readonly records: number;
}

// The long form is `npm run soundness:capture -- --kills 500`.
it('C15 a capture that is killed at random moments under load publishes exactly what a trigger journal holds, in its order', async () => {
  const seed = String(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const child = spawn(process.execPath, [script, '--seed', seed, '--kills', String(KILLS)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += String(chunk)));
  child.stderr.on('data', (chunk: Buffer) => (said += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`soundness of capture ended with ${code}:\n${said}`);
  const { sound, kills, records } = JSON.parse(out) as Result;
  expect(sound).toBe(true);
  const { snapshot = 0, start = 0, firstSecond = 0, later = 0 } = kills;
  expect(snapshot + start + firstSecond + later).toBe(KILLS);
  expect(records).toBeGreaterThan(1_000);
}, 240_000);
