import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { headerText } from '@headwater/core';
import { eventually } from '@headwater/testing';
import { Source } from './source.testing.js';

let source: Source;
let transactionsTopic: string;
beforeEach(async () => {
  source = await Source.open();
  transactionsTopic = `${source.name}.transactions`;
  await source.sql.query(
    `CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE c (id int PRIMARY KEY, b text); CREATE TABLE other (id int PRIMARY KEY);
     INSERT INTO a VALUES (-1, 'snapshot')`,
  );
  await source.topics(['a', 'c', 'out'], 2);
});
afterEach(() => source.close());

interface Told {
  readonly id: string;
  readonly lsn: string;
  readonly ts: string;
  readonly count: number;
  readonly topics: Readonly<Record<string, number>>;
}

/** What the records of all topics say of the transactions, in the form of the topic of transactions. */
async function counted(): Promise<Map<string, Told>> {
  const found = new Map<string, Told>();
  for (const name of ['a', 'c', 'out'])
    for (const { tx, lsn, record } of await source.seen(name)) {
      if (!/^\d+$/.test(tx!)) continue;
      const { count, topics } = found.get(lsn!) ?? { count: 0, topics: {} as Record<string, number> };
      const topic = source.topic(name);
      found.set(lsn!, {
        id: tx!,
        lsn: lsn!,
        ts: headerText(record.headers, 'hw_ts')!,
        count: count + 1,
        topics: { ...topics, [topic]: (topics[topic] ?? 0) + 1 },
      });
    }
  return found;
}

/** Every transaction is told once, as its records say, in the order of their commits. */
async function toldAsCounted(least: number): Promise<readonly Told[]> {
  return eventually(
    async () => {
      const seen = await source.seenIn(transactionsTopic, least);
      const told = seen.map(({ value }) => JSON.parse(value!) as Told);
      const found = await counted();
      expect(new Set(told.map(({ lsn }) => lsn)).size).toBe(told.length);
      expect(new Map(told.map((of) => [of.lsn, of]))).toEqual(found);
      expect(seen.map(({ key }) => key)).toEqual(told.map(({ id }) => id));
      const lsns = told.map(({ lsn }) =>
        lsn
          .split('/')
          .map((part) => part.padStart(8, '0'))
          .join('/'),
      );
      expect(lsns).toEqual(lsns.toSorted((x, y) => (x < y ? -1 : 1)));
      return told;
    },
    { timeoutMs: 30_000 },
  );
}

describe('a topic of transactions', () => {
  it('tells each once at its end, with what it has put into topics, however large, filtered or truncated', async () => {
    await source.sql.query(`SELECT 1`);
    const options = {
      transactionsTopic,
      truncate: 'tombstones',
      maxBatchRows: 50,
      tables: [
        { table: 'public.a', topic: source.topic('a'), where: 'id < 10000' },
        { table: 'public.c', topic: source.topic('c') },
      ],
    } as const;
    const capture = await source.started([], options);
    const outbox = JSON.stringify({ topic: source.topic('out'), key: 'k', value: 'v' });
    await source.sql
      .query(`BEGIN; INSERT INTO a VALUES (1, 'x'); INSERT INTO c VALUES (1, 'x'); INSERT INTO other VALUES (1);
      SELECT pg_logical_emit_message(true, 'headwater', '${outbox}'); UPDATE a SET id = 2 WHERE id = 1; COMMIT`);
    // Nothing of these is published: another table, a row that the filter keeps back, a rollback.
    await source.sql.query('INSERT INTO other VALUES (2)');
    await source.sql.query(`INSERT INTO a VALUES (10001, 'hidden')`);
    await source.sql.query(`BEGIN; INSERT INTO a VALUES (3, 'x'); ROLLBACK`);
    await source.sql.query(
      `BEGIN; SAVEPOINT s; INSERT INTO a VALUES (3, 'x'); ROLLBACK TO s; INSERT INTO a VALUES (4, 'y'); COMMIT`,
    );
    await source.sql.query(`INSERT INTO a SELECT g, 'many' FROM generate_series(100, 999) g`);
    await source.sql.query(`BEGIN; INSERT INTO a VALUES (5, 'own'); TRUNCATE a; INSERT INTO a VALUES (6, 'z'); COMMIT`);
    await source.sql.query(`SELECT pg_logical_emit_message(false, 'headwater', '${outbox}')`);
    const [a, c, out] = ['a', 'c', 'out'].map((name) => source.topic(name));
    const told = await toldAsCounted(4);
    expect(told.map(({ count, topics }) => [count, topics])).toEqual([
      [5, { [a!]: 3, [c!]: 1, [out!]: 1 }],
      [1, { [a!]: 1 }],
      [900, { [a!]: 900 }],
      // The own row and its tombstone, those of all before, and the last row.
      [906, { [a!]: 906 }],
    ]);
    // Of a snapshot nothing is told; a message outside of transactions is counted as a row and not told.
    await eventually(() => expect(capture.status().rows).toBe(1 + 5 + 1 + 900 + 906 + 1));
    expect((await source.seen('a')).filter(({ op }) => op === 'r')).toHaveLength(1);
  });

  it('tells each once over kills', async () => {
    const options = { transactionsTopic, snapshotWorkers: 1 };
    let process = await source.process(['a', 'c'], options);
    let next = 0;
    let writing = true;
    const writer = await source.client();
    const writes = (async () => {
      for (; writing; next++)
        await writer.query(
          `BEGIN; INSERT INTO a VALUES (${next}, 'x'); INSERT INTO c SELECT ${next} * 10 + g FROM generate_series(1, ${1 + (next % 7)}) g; COMMIT`,
        );
    })();
    for (let kill = 0; kill < 4; kill++) {
      const from = (await source.seen('a')).length;
      await source.seenCount('a', from + 30, 30_000);
      await process.kill();
      process = await source.process(['a', 'c'], options);
    }
    writing = false;
    await writes;
    await source.seenCount('a', next + 1, 30_000);
    const told = await toldAsCounted(next);
    expect(told.map(({ count }) => count)).toEqual(Array.from({ length: next }, (_, i) => 2 + (i % 7)));
  });

  it('is made with the policy delete, and refused with another', async () => {
    const { admin } = source.log;
    await admin.ensureTopics([{ topic: transactionsTopic, partitions: 1, cleanupPolicy: 'compact' }]);
    await expect(source.started(['a'], { transactionsTopic })).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      message: expect.stringContaining('cleanup.policy: wanted delete, found compact'),
    });
    await admin.deleteTopics([transactionsTopic]);
    await source.started(['a'], { transactionsTopic });
    expect(await admin.diffTopics([{ topic: transactionsTopic, partitions: 1, cleanupPolicy: 'delete' }])).toEqual([]);
    await admin.deleteTopics([transactionsTopic]);
  });
});
