import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { partitionOf } from '@headwater/core';
import { eventually, seededRandom } from '@headwater/testing';
import type { CapturedTable } from './capture.options.js';
import { Source } from './source.testing.js';

const PARTITIONS = 4;
let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(() => source.close());

const table = (name: string, more: Partial<CapturedTable> = {}): CapturedTable => ({
  table: `public.${name}`,
  topic: source.topic(name),
  partitionBy: ['by'],
  ...more,
});
const partition = (text: string) => partitionOf(Buffer.from(text), PARTITIONS);

/** Each key is live in one partition, that of its column, with the value of its row. Partitions are folded one by one, as readers see them. */
async function foldEqualsTable(name: string): Promise<void> {
  const { rows } = await source.sql.query<{ id: number; by: string | null; b: string }>(
    `SELECT id, by, b FROM ${name}`,
  );
  const wanted = rows.map((row) => `${partition(row.by ?? '')} ${row.id} ${JSON.stringify(row)}`);
  await eventually(
    async () => {
      const fold = new Map<string, string>();
      for (const { record } of await source.seen(name)) {
        const at = `${record.partition} ${record.key!.toString()}`;
        if (record.value === null) fold.delete(at);
        else fold.set(at, `${at} ${record.value.toString()}`);
      }
      expect([...fold.values()].toSorted()).toEqual(wanted.toSorted());
    },
    { timeoutMs: 20_000 },
  );
}

describe('rows partitioned by another column', () => {
  it('lie where a record with that key would, a moved one leaving a tombstone behind, in order and in one transaction', async () => {
    await source.sql.query(
      `CREATE TABLE f (id int PRIMARY KEY, by text, b text); ALTER TABLE f REPLICA IDENTITY FULL;
       CREATE TABLE i (id int PRIMARY KEY, by text NOT NULL, b text); CREATE UNIQUE INDEX i_by ON i (by, id); ALTER TABLE i REPLICA IDENTITY USING INDEX i_by;
       CREATE TABLE k (by text, id int, b text, PRIMARY KEY (by, id))`,
    );
    await source.topics(['f', 'i', 'k'], PARTITIONS);
    const [from, to] = ['a', 'b', 'c', 'd', 'e'].filter((text) => partition(text) !== partition('z'));
    for (const name of ['f', 'i', 'k']) await source.sql.query(`INSERT INTO ${name} (id, by) VALUES (1, 'z')`);
    await source.started([], { tables: ['f', 'i', 'k'].map((name) => table(name)) });
    for (const name of ['f', 'i', 'k']) {
      await source.sql.query(
        `UPDATE ${name} SET b = 'x'; UPDATE ${name} SET by = '${from}'; UPDATE ${name} SET id = 2, by = 'z';
         DELETE FROM ${name}; INSERT INTO ${name} VALUES ${name === 'k' ? `('${to}', 3)` : `(3, '${to}')`}`,
      );
      const seen = await source.seenCount(name, 8);
      await source.settled([name]);
      const key = (id: number, by: string) => (name === 'k' ? JSON.stringify([by, String(id)]) : String(id));
      const story = seen
        .toSorted((x, y) => (x.lsn === y.lsn ? x.seq - y.seq : x.op === 'r' ? -1 : 0))
        .map(({ op, record, seq }) => [op, record.key!.toString(), record.partition, seq]);
      expect(story).toEqual([
        ['r', key(1, 'z'), partition('z'), 0],
        ['u', key(1, 'z'), partition('z'), 0],
        ['d', key(1, 'z'), partition('z'), 1],
        ['u', key(1, from!), partition(from!), 2],
        ['d', key(1, from!), partition(from!), 3],
        ['u', key(2, 'z'), partition('z'), 4],
        ['d', key(2, 'z'), partition('z'), 5],
        ['c', key(3, to!), partition(to!), 6],
      ]);
    }
  });

  it('by snapshot and by stream, and over a lost slot: each key is live in one partition, that of its row', async () => {
    const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    console.info(`seed ${seed}`);
    const random = seededRandom(seed);
    await source.sql.query(
      `CREATE TABLE t (id int PRIMARY KEY, by text, b text); ALTER TABLE t REPLICA IDENTITY FULL;
       INSERT INTO t SELECT g, 'c' || g % 9, 'x' FROM generate_series(1, 300) g`,
    );
    await source.topics(['t'], PARTITIONS);
    const change = (): string => {
      const id = 1 + random.below(300);
      const by = random.chance(0.1) ? 'NULL' : `'c${random.below(9)}'`;
      return random.pick([
        `UPDATE t SET by = ${by} WHERE id = ${id}`,
        `UPDATE t SET b = b || 'y' WHERE id = ${id}`,
        `UPDATE t SET by = ${by}, id = ${1_000 + random.below(300)} WHERE id = ${id} AND NOT EXISTS (SELECT FROM t WHERE id >= 1000)`,
        `DELETE FROM t WHERE id = ${id}`,
        `INSERT INTO t VALUES (${id}, ${by}, 'new') ON CONFLICT (id) DO UPDATE SET by = excluded.by`,
      ]);
    };
    const some = async (count: number) => {
      for (let i = 0; i < count; i++) await source.sql.query(change());
    };
    const options = {
      tables: [table('t')],
      snapshotChunkRows: 7,
      snapshot: 'when-needed',
      truncate: 'tombstones',
    } as const;
    const first = source.capture([], options);
    const [started] = [first.start(), await some(150)];
    await started;
    await foldEqualsTable('t');
    // What is asked for, under writes.
    const [asked] = [first.snapshot({ tables: ['public.t'] }), await some(150)];
    await asked;
    await eventually(() => expect(first.status().snapshots).toEqual([]), { timeoutMs: 20_000 });
    await foldEqualsTable('t');
    // Rows move and go while nobody looks: what is live in a partition they have left is buried there.
    await first.stop();
    await source.slotFree();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await some(200);
    const second = source.capture([], options);
    const [again] = [second.start(), await some(150)];
    await again;
    await foldEqualsTable('t');
    await source.sql.query(
      `BEGIN; UPDATE t SET by = 'own' WHERE id % 2 = 0; TRUNCATE t; INSERT INTO t VALUES (5, 'c1', 'last'); COMMIT`,
    );
    await foldEqualsTable('t');
    await second.stop();
    // Partitioned by key from now on: refused, or told anew with the old places buried.
    const byKey = { ...options, tables: [{ table: 'public.t', topic: source.topic('t') }] };
    await expect(source.started([], { ...byKey, snapshot: 'initial' })).rejects.toMatchObject({
      code: 'CDC_KEY_CHANGED',
      message: expect.stringContaining('(id, partitioned by by)'),
    });
    await source.started([], byKey);
    await eventually(async () => {
      const live = new Map(
        (await source.seen('t')).map(({ record }) => [`${record.partition} ${String(record.key)}`, record]),
      );
      const left = [...live.values()].filter(({ value }) => value !== null);
      expect(left.map((record) => [String(record.key), record.partition])).toEqual([['5', partition('5')]]);
    });
  });

  it('are refused where old rows would not tell the column, or a rule hides it', async () => {
    await source.sql.query(
      `CREATE TABLE t (id int PRIMARY KEY, by text, b text);
       CREATE TABLE p (id int, by text, PRIMARY KEY (id)) PARTITION BY RANGE (id); ALTER TABLE p REPLICA IDENTITY FULL;
       CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
    );
    await source.topics(['t', 'p'], PARTITIONS);
    const refused = async (of: CapturedTable, fault: RegExp) =>
      expect(source.started([], { tables: [of] })).rejects.toMatchObject({
        code: 'CDC_TABLES_INVALID',
        message: expect.stringMatching(fault),
      });
    await refused(table('t'), /partitionBy needs by of old rows.*ALTER TABLE public\.t REPLICA IDENTITY FULL/);
    await refused(table('t', { partitionBy: ['typo'] }), /partitionBy column\(s\) typo do not exist/);
    await refused(table('t', { partitionBy: [] }), /partitionBy names no column/);
    await refused(table('p'), /partition p_1 too\. ALTER TABLE p_1 REPLICA IDENTITY FULL/);
    await source.sql.query('ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE p_1 REPLICA IDENTITY FULL');
    await refused(table('t', { columns: { by: 'mask' } }), /rule for column by.*partition/);
    // A partition that comes later with another identity: capture stops before a row is left behind.
    const capture = await source.started([], { tables: [table('p')] });
    await source.sql.query(
      `CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (11, 'a'), (1, 'a'); UPDATE p SET by = 'b' WHERE id = 11`,
    );
    await expect(capture.finished).rejects.toMatchObject({
      code: 'CDC_PROTOCOL',
      message: expect.stringContaining('REPLICA IDENTITY of its partitions'),
    });
  });
});
