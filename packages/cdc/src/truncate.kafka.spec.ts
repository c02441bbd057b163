import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { headerText } from '@headwater/core';
import { parseLsn } from './lsn.js';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query(
    `CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE c (id int PRIMARY KEY, a_id int REFERENCES a); CREATE TABLE d (id int PRIMARY KEY);
     INSERT INTO a SELECT g, 'x' FROM generate_series(1, 20) g; INSERT INTO c VALUES (1, 1), (2, 1); INSERT INTO d VALUES (1)`,
  );
  await source.topics(['a', 'c', 'd'], 3);
});
afterEach(() => source.close());

const TABLES = ['a', 'c', 'd'];
const keys = (seen: readonly { readonly key: string | undefined }[]) =>
  seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y);

describe('TRUNCATE', () => {
  it('C61 C08 becomes a tombstone for every live key of each table, in its place', async () => {
    const options = { truncate: 'tombstones', maxBatchRows: 7 } as const;
    const capture = await source.started(TABLES, options);
    await source.seenCount('a', 20);
    // A backlog: what comes just before the TRUNCATE is not yet in the topic, and its own rows are more than one part.
    await capture.stop();
    await source.slotFree();
    await source.sql.query(`DELETE FROM a WHERE id = 20; INSERT INTO a VALUES (21, 'y')`);
    await source.sql.query(
      `BEGIN; INSERT INTO a VALUES (22, 'own'); DELETE FROM a WHERE id = 19; UPDATE a SET id = 23 WHERE id = 18;
       TRUNCATE a CASCADE; INSERT INTO a VALUES (5, 'new'); COMMIT`,
    );
    await source.sql.query(`INSERT INTO a VALUES (6, 'later')`);
    await source.sql.query('INSERT INTO c VALUES (9, 6); UPDATE d SET id = 2');
    await source.started(TABLES, options);
    await source.seenCount('d', 3);
    await source.seenCount('c', 5);
    expect(await source.fold('a')).toEqual(
      new Map([
        ['5', '{"id":5,"b":"new"}'],
        ['6', '{"id":6,"b":"later"}'],
      ]),
    );
    expect(await source.fold('c')).toEqual(new Map([['9', '{"id":9,"a_id":6}']]));
    expect(await source.fold('d')).toEqual(new Map([['2', '{"id":2}']]));
    const seen = await source.seen('a');
    const emptied = seen.filter(({ op }) => op === 't');
    expect(emptied.every(({ value }) => value === undefined)).toBe(true);
    // 20 was deleted before; 18, 19 and 22, 23 were written by the transaction itself.
    expect(keys(emptied)).toEqual([...Array.from({ length: 19 }, (_, i) => i + 1), 21, 22, 23]);
    const tx = emptied[0]!.tx;
    const all = [...seen, ...(await source.seen('c'))].filter((record) => record.tx === tx);
    expect(all.map(({ seq }) => seq).toSorted((x, y) => x - y)).toEqual(all.map((_, i) => i));
    expect(keys((await source.seen('c')).filter(({ op }) => op === 't'))).toEqual([1, 2]);
    for (const { record, lsn } of seen) {
      const before = seen.filter(
        (other) => other.record.partition === record.partition && other.record.offset < record.offset,
      );
      expect(before.every((other) => parseLsn(other.lsn!) <= parseLsn(lsn!))).toBe(true);
    }
  });

  it('C61 becomes a marker in every partition', async () => {
    await source.started(TABLES, { truncate: 'marker' });
    await source.seenCount('a', 20);
    await source.sql.query(`BEGIN; TRUNCATE a, c, d; INSERT INTO a VALUES (5, 'new'); COMMIT`);
    for (const table of TABLES) {
      const count = { a: 24, c: 5, d: 4 }[table]!;
      const marks = (await source.seenCount(table, count)).filter(({ op }) => op === 't');
      expect(marks.map(({ key, value, record }) => [key, value, record.partition])).toEqual([
        ['', undefined, 0],
        ['', undefined, 1],
        ['', undefined, 2],
      ]);
      expect(headerText(marks[0]!.record.headers, 'hw_table')).toBe(`public.${table}`);
    }
    const five = (await source.seen('a')).filter(
      ({ record }) => record.key!.toString() === '5' || record.key!.length === 0,
    );
    const of = five.filter(({ record }) => record.partition === five.find(({ op }) => op === 'c')!.record.partition);
    expect(of.map(({ op }) => op)).toEqual(['r', 't', 'c']);
  });

  it('C61 stops by default, naming the tables and where it was, with nothing of its transaction published', async () => {
    const capture = await source.started(TABLES);
    await source.seenCount('a', 20);
    await source.sql.query(`BEGIN; INSERT INTO a VALUES (30, 'x'); TRUNCATE a CASCADE; COMMIT`);
    await expect(capture.finished).rejects.toMatchObject({
      code: 'CDC_TRUNCATE_UNSUPPORTED',
      message: expect.stringMatching(/public\.a, public\.c .*[0-9A-F]+\/[0-9A-F]+/),
    });
    expect(await source.seen('a')).toHaveLength(20);
  });
});
