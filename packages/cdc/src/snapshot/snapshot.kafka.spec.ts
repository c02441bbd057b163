import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { Source } from '../source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(() => source.close());

/** What a snapshot of these tables put into their topics, each record once. */
async function snapshotRecords(tables: readonly string[]): Promise<string[]> {
  await source.settled(tables);
  const all = (await Promise.all(tables.map((table) => source.seen(table)))).flat();
  const reads = all.filter(({ op }) => op === 'r');
  expect(new Set(reads.map(({ tx, seq }) => `${tx} ${seq}`)).size).toBe(reads.length);
  return reads.map(({ record, key, value }) => `${record.topic} ${key} ${value}`).toSorted();
}

describe('snapshot', () => {
  it('C46 reads each of 1,000 rows once, whatever the type of the key', async () => {
    const keys: Readonly<Record<string, readonly [columns: string, key: string, values: string]>> = {
      composite: ['a int, b text', 'a, b', `g / 100, 'it''s ' || g`],
      uuids: ['a uuid', 'a', 'md5(g::text)::uuid'],
      enums: ['a mood, b int', 'a, b', `(ARRAY['sad', 'ok', 'happy']::mood[])[1 + g % 3], g`],
      numerics: [
        'a numeric',
        'a',
        `CASE g WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' WHEN 3 THEN '-Infinity' ELSE (g / 7.0)::text END::numeric`,
      ],
      texts: ['a text', 'a', `CASE g WHEN 1 THEN '' ELSE chr(64 + g % 60) || E'\\t\\\\\\n"é' || g END`],
      times: [
        'a timestamptz, b date',
        'b, a',
        `'2026-01-01'::timestamptz + g * interval '1.000001 s', CASE g WHEN 1 THEN '-infinity' ELSE '2026-01-01'::date + g / 50 END`,
      ],
      floats: ['a float8, b bytea', 'a, b', `g / 3.0, decode(md5(g::text), 'hex')`],
    };
    await source.sql.query(`CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')`);
    const tables = Object.keys(keys);
    for (const [table, [columns, key, values]] of Object.entries(keys)) {
      await source.sql.query(`CREATE TABLE ${table} (${columns}, PRIMARY KEY (${key}));
        INSERT INTO ${table} SELECT ${values} FROM generate_series(1, 1000) g`);
    }
    await source.topics(tables, 2);
    await source.started(tables, { snapshotChunkRows: 7 });
    await source.settled(tables);
    for (const table of tables) {
      const { rows } = await source.sql.query(`SELECT * FROM ${table}`);
      const seen = await source.seen(table);
      expect([table, seen.length, new Set(seen.map(({ key }) => key)).size]).toEqual([table, rows.length, 1000]);
    }
    await snapshotRecords(tables);
    // A chunk is a transaction of its own: seven rows, numbered from 0.
    const chunks = new Map<string, number[]>();
    for (const { tx, seq } of await source.seen('composite')) chunks.set(tx!, [...(chunks.get(tx!) ?? []), seq]);
    for (const seqs of chunks.values()) expect(seqs.toSorted((x, y) => x - y)).toEqual(seqs.map((_, i) => i));
    expect(Math.max(...[...chunks.values()].map(({ length }) => length))).toBe(7);
  });

  it('C49 gives the same records with one worker and with four', async () => {
    const tables = ['a', 'b', 'c'];
    for (const table of tables) {
      await source.sql.query(
        `CREATE TABLE ${table} (id int PRIMARY KEY, b text); INSERT INTO ${table} SELECT g, md5(g::text) FROM generate_series(1, 2000) g; ANALYZE ${table}`,
      );
    }
    const recordsWith = async (workers: number): Promise<string[]> => {
      const copies = tables.map((table) => `${table}${workers}`);
      await source.topics(copies, 3);
      await source.started([], {
        name: `${source.name}_${workers}`,
        tables: tables.map((table, i) => ({ table: `public.${table}`, topic: source.topic(copies[i]!) })),
        snapshotChunkRows: 100,
        snapshotWorkers: workers,
      });
      return snapshotRecords(copies);
    };
    const serial = await recordsWith(1);
    expect(serial).toHaveLength(6_000);
    const parallel = new Set((await recordsWith(4)).map((record) => record.replace(/^(\S+)4 /, '$11 ')));
    expect([parallel.size, serial.filter((record) => !parallel.has(record))]).toEqual([6_000, []]);
  });

  it('C50 publishes again exactly the rows of a condition, while the stream goes on', async () => {
    await source.sql.query(
      `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a SELECT g, CASE g % 4 WHEN 0 THEN 'EU' ELSE 'US' END FROM generate_series(1, 400) g`,
    );
    await source.topics(['a'], 2);
    const capture = await source.started(['a'], { snapshotChunkRows: 10 });
    await source.settled(['a']);
    const before = new Set((await source.seen('a')).map(({ tx }) => tx));
    let writing = true;
    const writes = (async () => {
      for (let id = 1_000; writing; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'US')`);
      return undefined;
    })();
    // A comment at its end must not swallow what follows.
    const id = await capture.snapshot({ tables: ['public.a'], where: `b = 'EU' -- Europe` });
    await eventually(() => expect(capture.status().snapshots).toEqual([]), { timeoutMs: 30_000 });
    writing = false;
    await writes;
    await source.foldEqualsTable();
    const again = (await source.seen('a')).filter(({ op, tx }) => op === 'r' && !before.has(tx));
    expect(again.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(
      Array.from({ length: 100 }, (_, i) => 4 * (i + 1)),
    );
    const others = (await source.seen('a')).filter(({ op }) => op === 'd');
    expect([id.length > 0, others, source.errors]).toEqual([true, [], []]);
  });
});
