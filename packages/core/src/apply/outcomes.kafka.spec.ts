import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { kafkaLog } from '@headwater/kafka';
import { eventually, postgresFaultProxy, testDatabase, uniqueName } from '@headwater/testing';
import type { Log } from '../log/log.js';
import { committedRecords, produce, textRecord } from '../log/log.testing.js';
import { Database } from '../postgres/database.js';
import { ensureSchema } from '../postgres/schema.js';
import { EAGER_COMPACTION } from '../process/sums.testing.js';
import type { ApplyDefinition } from './apply-definition.js';
import { ApplyRunner } from './apply-runner.js';

interface Amount {
  readonly key: string;
  readonly n: number;
}

const LATER = { timeoutMs: 40_000, intervalMs: 20 };

let closing: (() => Promise<void>)[];
let log: Log;
let url: string;
let database: Database;
let topic: string;
let consumer: string;

beforeEach(async () => {
  closing = [];
  const test = await testDatabase(process.env['DATABASE_URL']!);
  url = test.url;
  closing.push(() => test.drop());
  log = kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') });
  closing.push(() => log.close());
  database = openDatabase(url);
  topic = uniqueName('amounts');
  consumer = uniqueName('consumer');
  await ensureSchema(database, ['CREATE TABLE totals (key text PRIMARY KEY, n int NOT NULL)']);
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
});

function openDatabase(at: string): Database {
  const opened = new Database(at);
  closing.push(() => opened.close());
  return opened;
}

/** Additive on purpose: a batch applied twice shows, and so does one that is missing. */
function definition(): ApplyDefinition<Amount> {
  return {
    consumer,
    topics: [topic],
    prepare: ({ key, value }) => ({ key: key!.toString(), n: Number(value!.toString()) }),
    write: async (amounts, sql) => {
      for (const { key, n } of amounts)
        await sql.query(
          'INSERT INTO totals VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET n = totals.n + EXCLUDED.n',
          [key, n],
        );
    },
  };
}

function run(on: Database): { runner: ApplyRunner<Amount>; warnings: string[] } {
  const warnings: string[] = [];
  const logger = { log: () => undefined, error: () => undefined, warn: (text: string) => void warnings.push(text) };
  const runner = new ApplyRunner(definition(), { log, database: on, logger });
  closing.push(() => runner.stop());
  return { runner, warnings };
}

async function totals(): Promise<Record<string, number>> {
  const { rows } = await database.query<{ key: string; n: number }>('SELECT key, n FROM totals');
  return Object.fromEntries(rows.map(({ key, n }) => [key, n]));
}

async function nextOffset(): Promise<number | undefined> {
  const sql = 'SELECT next_offset::int AS next FROM headwater.offsets WHERE consumer = $1';
  return (await database.query<{ next: number }>(sql, [consumer])).rows[0]?.next;
}

const add = (key: string, n: number) => textRecord(topic, key, String(n));

describe('the apply engine', () => {
  it('S83 moves its offset row over markers, aborted and compacted records to the next offset of the batch', async () => {
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact', config: EAGER_COMPACTION }]);
    const writer = log.writer({ transactionalId: uniqueName('writer') });
    await writer.fence();
    let rolled = 0;
    for (let n = 1; n <= 20; n++) {
      const transaction = writer.begin();
      await transaction.append([add('a', 1_000 * n), add(`b${n}`, n)]);
      if (n % 2 === 0) await transaction.abort();
      else expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
    }
    // Of the ten values of `a` the compaction leaves one, in the middle of gaps.
    await eventually(async () => {
      await produce(log, [add('roll', ++rolled)]);
      expect((await committedRecords(log, topic)).filter(({ key }) => key!.toString() === 'a')).toHaveLength(1);
    }, LATER);
    const kept = await committedRecords(log, topic);
    run(database);
    const settled = async () => {
      expect(await nextOffset()).toBe((await log.admin.offsets(topic))[0]!.lastStable);
    };
    await eventually(settled, LATER);
    const expected: Record<string, number> = {};
    for (const { key, value } of kept)
      expected[key!.toString()] = (expected[key!.toString()] ?? 0) + Number(value!.toString());
    // The cleaner may have taken more of `roll` between the two reads.
    const { roll: _, ...applied } = await totals();
    delete expected['roll'];
    expect(applied).toEqual(expected);
    expect(Object.keys(applied)).toHaveLength(11);
    await produce(log, [add('b1', 100)]);
    await eventually(async () => expect((await totals())['b1']).toBe(101), LATER);
    await eventually(settled, LATER);
  });

  for (const from of ['server', 'client'] as const) {
    const what = from === 'server' ? 'reply to COMMIT' : 'COMMIT';
    it(`S84 rereads its offset row when the ${what} is lost, and neither loses nor doubles the batch`, async () => {
      await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
      const proxy = await postgresFaultProxy(url);
      closing.push(() => proxy.close());
      await produce(log, [add('a', 1), add('b', 10)]);
      const { warnings } = run(openDatabase(proxy.url));
      await eventually(async () => expect(await totals()).toEqual({ a: 1, b: 10 }), LATER);
      let struck = 0;
      proxy.decide = (message) => {
        if (message.from !== from || message.statement !== 'COMMIT' || struck > 0) return undefined;
        return { act: 'close', onStrike: () => struck++ };
      };
      await produce(log, [add('a', 2), add('b', 20), add('c', 300)]);
      await eventually(() => expect(struck).toBe(1), LATER);
      await eventually(async () => expect(await totals()).toEqual({ a: 3, b: 30, c: 300 }), LATER);
      await produce(log, [add('a', 4)]);
      await eventually(async () => expect(await totals()).toEqual({ a: 7, b: 30, c: 300 }), LATER);
      await eventually(
        async () => expect(await nextOffset()).toBe((await log.admin.offsets(topic))[0]!.lastStable),
        LATER,
      );
      expect(warnings).toHaveLength(1);
    });
  }
});
