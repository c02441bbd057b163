import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';

const script = join(import.meta.dirname, '..', 'scripts', 'soak-capture.mjs');

interface Figures {
  readonly state: string;
  readonly files: number;
  readonly sessions: number;
  readonly producers: number;
}

interface Result {
  readonly faults: Readonly<Record<string, number>>;
  readonly differences: readonly string[];
  readonly before: Figures;
  readonly after: Figures;
  readonly slots: number;
  readonly wrong: readonly string[];
}

// Half a minute tells no slope of memory, only that it is bounded. The slope is asserted by the long form: npm run soak:capture -- --minutes 480 --fault-every 60 --max-lag 512.
it('C82 a capture under load with a fault every other second, for half a minute instead of eight hours: no difference, memory bounded, and slots, sessions, sockets and producers flat', async () => {
  const seed = String(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const options = { seed, minutes: '0.3', rate: '200', 'fault-every': '2', 'max-lag': '512', 'rss-noise': '100' };
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += String(chunk)));
  child.stderr.on('data', (chunk: Buffer) => (said += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`the soak of capture ended with ${code}:\n${said}\n${out}`);
  const { faults, differences, before, after, slots, wrong } = JSON.parse(out) as Result;
  expect(Object.keys(faults).toSorted()).toEqual([
    'brokerKilled',
    'kafkaReset',
    'kafkaSilent',
    'killed',
    'paused',
    'postgresReset',
    'postgresSilent',
    'walsenderTerminated',
  ]);
  expect([differences, wrong, slots]).toEqual([[], [], 1]);
  expect(after.producers).toBe(before.producers);
  expect(after.state).toBe('streaming');
}, 240_000);
