import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { parkedTopicOf, stateTopicOf, type Log, type OutRecord } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, seededRandom, settledOffsets, uniqueName } from '@headwater/testing';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const script = fileURLToPath(new URL('./counting-process.mjs', import.meta.url));
const PARTITIONS = 2;

let log: Log;
let name: string;
let input: string;
let output: string;
let child: ChildProcess | undefined;

beforeEach(async () => {
  log = kafkaLog({ brokers });
  name = uniqueName('engine');
  input = uniqueName('input');
  output = uniqueName('output');
  await log.admin.ensureTopics([
    { topic: input, partitions: PARTITIONS, cleanupPolicy: 'delete' },
    { topic: output, partitions: PARTITIONS, cleanupPolicy: 'delete' },
    { topic: parkedTopicOf(name), partitions: PARTITIONS, cleanupPolicy: 'delete' },
    { topic: stateTopicOf(name), partitions: PARTITIONS, cleanupPolicy: 'compact' },
  ]);
});
afterEach(async () => {
  await kill();
  await log.close();
});

/** Starts the process; resolves when it handles records, at latest after the dead one's session has ended. */
async function start(): Promise<void> {
  const options = { brokers, name, input, output, instanceId: 'one' };
  const started = spawn(process.execPath, [script, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'pipe'] });
  child = started;
  let said = '';
  for (const stream of [started.stdout, started.stderr]) stream.on('data', (chunk: Buffer) => (said += String(chunk)));
  await eventually(() => expect(said).toContain('up\n'), { timeoutMs: 40_000 });
}

async function kill(): Promise<void> {
  const dying = child;
  child = undefined;
  if (dying === undefined || dying.exitCode !== null || dying.signalCode !== null) return;
  const gone = new Promise((resolve) => dying.once('exit', resolve));
  dying.kill('SIGKILL');
  await gone;
}

const record = (key: string, value: string): OutRecord => ({
  topic: input,
  key: Buffer.from(key),
  value: Buffer.from(value),
});

async function produce(...batches: readonly (readonly OutRecord[])[]): Promise<void> {
  const writer = log.writer({ transactionalId: uniqueName('load') });
  await writer.fence();
  for (const batch of batches) expect(await writer.transact(batch)).toMatchObject({ outcome: 'committed' });
  await writer.close();
}

/** Follows the output from its beginning: every value seen, per key in log order. */
class Output {
  readonly seen = new Map<string, string[]>();
  readonly #reader = log.reader();
  count = 0;

  constructor() {
    for (let partition = 0; partition < PARTITIONS; partition++) this.#reader.seek(output, partition, 0);
  }

  async reaches(count: number, timeoutMs = 60_000): Promise<void> {
    await eventually(
      async () => {
        await this.#poll();
        expect(this.count).toBeGreaterThanOrEqual(count);
      },
      { timeoutMs, intervalMs: 1 },
    );
  }

  /** What else comes: a result that was doubled would follow the last one. */
  async rest(): Promise<void> {
    await settledOffsets(log, output);
    for (let empty = 0; empty < 2;) empty = (await this.#poll()) === 0 ? empty + 1 : 0;
  }

  close(): Promise<void> {
    return this.#reader.close();
  }

  async #poll(): Promise<number> {
    let count = 0;
    for (const batch of await this.#reader.poll({ maxWaitMs: 50 })) {
      for (const { key, value } of batch.records) {
        const values = this.seen.get(key!.toString()) ?? [];
        values.push(value!.toString());
        this.seen.set(key!.toString(), values);
        count++;
      }
    }
    this.count += count;
    return count;
  }
}

describe('a processor killed with SIGKILL', () => {
  it('S38 has exactly f(input) over five kills at random moments under load', async () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    process.stdout.write(`S38 SEED=${seed}\n`);
    const random = seededRandom(seed).fraction;
    const keys = Array.from({ length: 20 }, (_, i) => `key-${i}`);
    const sums = new Map<string, string[]>();
    let produced = 0;
    const batch = (): OutRecord[] =>
      Array.from({ length: 50 }, () => {
        const key = keys[Math.floor(random() * keys.length)]!;
        const number = Math.floor(random() * 1_000);
        const known = sums.get(key) ?? [];
        sums.set(key, [...known, String(Number(known.at(-1) ?? '0') + number)]);
        produced++;
        return record(key, `add ${number}`);
      });
    const results = new Output();
    try {
      for (let round = 0; round < 5; round++) {
        await produce(...Array.from({ length: 40 }, batch));
        await start();
        // Behind a random result the next transactions are under way: the kill meets them anywhere.
        await results.reaches(Math.floor(results.count + random() * (produced - results.count) * 0.7));
        await kill();
      }
      await start();
      await produce(batch());
      await results.reaches(produced);
      await eventually(() => results.rest());
      expect(Object.fromEntries(results.seen)).toEqual(Object.fromEntries(sums));
    } finally {
      await results.close();
    }
  });

  it('S61 fires every timer once, killed before and while they fire, and none before its time', async () => {
    const keys = Array.from({ length: 400 }, (_, i) => `alarm-${i}`);
    const firstAt = Date.now() + 4_000;
    const at = (i: number) => firstAt + i * 5;
    await start();
    const results = new Output();
    try {
      await produce([...keys.map((key, i) => record(key, `alarm ${at(i)}`)), record('probe-a', 'add 1')]);
      await produce([record('probe-b', 'add 1')]);
      await eventually(async () => {
        await results.reaches(1, 1_000);
        expect([...results.seen.keys()].some((key) => key.startsWith('probe'))).toBe(true);
      });
      await kill();
      await start();
      await results.reaches(100);
      await kill();
      await start();
      await results.reaches(keys.length + 2);
      await eventually(() => results.rest());
      for (const [i, key] of keys.entries()) {
        const fired = results.seen.get(key) ?? [];
        expect([key, fired.length]).toEqual([key, 1]);
        const [wanted, now] = fired[0]!.split(' ').map(Number) as [number, number];
        expect(wanted).toBe(at(i));
        expect(now).toBeGreaterThanOrEqual(wanted);
      }
      expect(results.count).toBe(keys.length + 2);
    } finally {
      await results.close();
    }
  });
});
