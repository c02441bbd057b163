import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { headerText } from '@headwater/core';
import { eventually } from '@headwater/testing';
import type { CapturedTable, CaptureOptions } from './capture.options.js';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query(
    `CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE c (id int PRIMARY KEY, b text); CREATE TABLE d (x text, y text, b text, PRIMARY KEY (x, y));
     INSERT INTO a SELECT g, 'a' FROM generate_series(1, 20) g; INSERT INTO c SELECT g, 'c' FROM generate_series(1, 20) g;
     INSERT INTO d VALUES ('public.a', '1', 'd')`,
  );
  await source.topics(['all'], 3);
});
afterEach(() => source.close());

const tables = (more: Partial<CapturedTable> = { keyWithTable: true }): CapturedTable[] =>
  ['a', 'c', 'd'].map((name) => ({ table: `public.${name}`, topic: source.topic('all'), ...more }));

async function foldEqualsTables(): Promise<void> {
  const wanted = new Map<string, string>();
  for (const name of ['a', 'c', 'd']) {
    const { rows } = await source.sql.query<Record<string, unknown>>(`SELECT * FROM ${name}`);
    for (const row of rows) {
      const key = name === 'd' ? [row['x'], row['y']] : [String(row['id'])];
      wanted.set(JSON.stringify([`public.${name}`, ...key]), JSON.stringify(row));
    }
  }
  const sorted = (of: Map<string, string>) => [...of].toSorted(([x], [y]) => (x < y ? -1 : 1));
  await eventually(async () => expect(sorted(await source.fold('all'))).toEqual(sorted(wanted)), { timeoutMs: 20_000 });
}

describe('several tables in one topic', () => {
  it('have the name of their table in the key, by snapshot, stream, TRUNCATE and after a lost slot, none touching keys of another', async () => {
    const options = { tables: tables(), truncate: 'tombstones', snapshot: 'when-needed' } as const;
    const capture = await source.started([], options);
    await foldEqualsTables();
    await source.sql.query(
      `UPDATE a SET b = 'new' WHERE id = 1; UPDATE c SET id = 99 WHERE id = 1; DELETE FROM c WHERE id = 2; UPDATE d SET y = '2'`,
    );
    await foldEqualsTables();
    await source.sql.query('TRUNCATE a');
    await foldEqualsTables();
    const emptied = (await source.seen('all')).filter(({ op }) => op === 't');
    expect(new Set(emptied.map(({ record }) => headerText(record.headers, 'hw_table')))).toEqual(new Set(['public.a']));
    expect(emptied).toHaveLength(20);
    await capture.stop();
    await source.slotFree();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.query(`DELETE FROM c WHERE id < 10; INSERT INTO a VALUES (3, 'again')`);
    await source.started([], options);
    await foldEqualsTables();
    const buried = (await source.seen('all')).filter(({ op, tx }) => op === 'd' && tx!.startsWith('snapshot-'));
    // 1 and 2 had gone before.
    expect(buried.map(({ key }) => key).toSorted((x, y) => (x! < y! ? -1 : 1))).toEqual(
      Array.from({ length: 7 }, (_, i) => JSON.stringify(['public.c', String(i + 3)])),
    );
  });

  it('have a marker each', async () => {
    await source.started([], { tables: tables(), truncate: 'marker' });
    await source.sql.query('TRUNCATE a; TRUNCATE c');
    const marks = (await source.seenCount('all', 47)).filter(({ op }) => op === 't');
    expect(marks.map(({ key, record }) => `${record.partition} ${key}`).toSorted()).toEqual(
      [0, 1, 2].flatMap((partition) => [`${partition} ["public.a"]`, `${partition} ["public.c"]`]),
    );
  });

  it('are refused where their topic holds what capture keeps for itself, before any topic is made', async () => {
    const [first] = tables();
    const refused = async (more: Partial<CaptureOptions>, ...faults: RegExp[]) => {
      await expect(source.started([], { tables: [first!], ...more })).rejects.toMatchObject({
        code: 'CDC_TABLES_INVALID',
        facts: { faults: faults.map((fault) => expect.stringMatching(fault)) },
      });
      expect((await source.log.admin.partitionCounts([source.positionTopic])).size).toBe(0);
    };
    await refused({ transactionsTopic: first!.topic }, /^public\.a: its topic .* holds the transactions of capture/);
    await refused({ schemasTopic: first!.topic }, /^public\.a: its topic .* holds the versions of tables of capture/);
    await refused({ positionTopic: first!.topic }, /^public\.a: its topic .* holds the position of capture/);
    const transactionsTopic = source.positionTopic;
    await refused({ transactionsTopic }, /would hold the position of capture .* and the transactions of capture/);
  });

  it('are refused where their keys would collide, and where a topic would hold keys of two forms', async () => {
    await expect(source.started([], { tables: tables({}) })).rejects.toMatchObject({
      code: 'CDC_TABLES_INVALID',
      message: expect.stringMatching(
        /public\.a, public\.c, public\.d share topic .*"keyWithTable": true, or a topic of its own/,
      ),
    });
    const [first] = tables();
    await expect(source.started([], { tables: [first!, first!] })).rejects.toMatchObject({
      code: 'CDC_TABLES_INVALID',
      message: expect.stringContaining('public.a: captured twice'),
    });
    expect(await source.slotFacts()).toBeUndefined();
    const capture = await source.started([], { tables: [first!] });
    await capture.stop();
    await expect(source.started([], { tables: tables({}).slice(0, 1) })).rejects.toMatchObject({
      code: 'CDC_KEY_CHANGED',
      message: expect.stringContaining('was (id, with the table) and is now (id)'),
    });
  });
});
