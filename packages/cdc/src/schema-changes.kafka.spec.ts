import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(() => source.close());

const values = async (table: string, count: number) =>
  (await source.seenCount(table, count)).map(({ op, value }) => `${op} ${value ?? ''}`);

describe('schema changes', () => {
  const kinds: Readonly<Record<string, readonly [ddl: string, ...seen: string[]]>> = {
    added: [
      `ALTER TABLE t ADD c int DEFAULT 7; UPDATE t SET b = 'u' WHERE id = 1; INSERT INTO t VALUES (2, 'y', 8)`,
      'u {"id":1,"b":"u","c":7}',
      'c {"id":2,"b":"y","c":8}',
    ],
    dropped: [`ALTER TABLE t DROP b; UPDATE t SET id = id; INSERT INTO t VALUES (2)`, 'u {"id":1}', 'c {"id":2}'],
    renamed: [
      `ALTER TABLE t RENAME b TO "B b"; UPDATE t SET id = id; INSERT INTO t VALUES (2, 'y')`,
      'u {"id":1,"B b":"x"}',
      'c {"id":2,"B b":"y"}',
    ],
    retyped: [
      `ALTER TABLE t ALTER b TYPE int USING length(b); UPDATE t SET id = id; INSERT INTO t VALUES (2, 9)`,
      'u {"id":1,"b":1}',
      'c {"id":2,"b":9}',
    ],
    'retyped to a type that is made in the same transaction': [
      `CREATE TYPE mood AS ENUM ('x', 'so so'); ALTER TABLE t ALTER b TYPE mood[] USING ARRAY[b::mood]; UPDATE t SET id = id; INSERT INTO t VALUES (2, '{"so so"}')`,
      'u {"id":1,"b":["x"]}',
      'c {"id":2,"b":["so so"]}',
    ],
  };

  it.each(Object.entries(kinds))(
    'C54 has the columns of their moment in each row when one is %s between rows of one transaction',
    async (_kind, [ddl, ...seen]) => {
      await source.sql.query('CREATE TABLE t (id int PRIMARY KEY, b text)');
      await source.topics(['t']);
      const capture = await source.started(['t']);
      await source.sql.query(`BEGIN; INSERT INTO t VALUES (1, 'x'); ${ddl}; COMMIT`);
      await source.sql.query('DELETE FROM t WHERE id = 1');
      // A rewritten table sends no rows of its own.
      const wanted = ['c {"id":1,"b":"x"}', ...seen, 'd '];
      expect(await values('t', 4)).toEqual(wanted);
      const all = await source.seen('t');
      expect(all.map(({ seq }) => seq)).toEqual([0, 1, 2, 0]);
      expect(new Set(all.slice(0, 3).map(({ tx }) => tx)).size).toBe(1);
      expect(capture.status().state).toBe('streaming');
      // Read again from the catalog of now.
      await capture.stop();
      await source.slotFree();
      await source.started(['t']);
      await source.sql.query('UPDATE t SET id = id');
      expect((await values('t', 5)).at(-1)).toBe(seen.at(-1)!.replace(/^c/, 'u'));
    },
  );

  it('C62 takes an enum label added while running, alone and in arrays', async () => {
    await source.sql.query(`CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, a mood, b mood[])`);
    await source.topics(['t']);
    const capture = await source.started(['t']);
    await source.sql.query(`INSERT INTO t VALUES (1, 'ok', '{ok}')`);
    await source.sql.query(`ALTER TYPE mood ADD VALUE 'so, so'`);
    await source.sql.query(`INSERT INTO t VALUES (2, 'so, so', '{ok,"so, so",NULL}')`);
    await source.sql.query(`ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'`);
    await source.sql.query('UPDATE t SET id = id WHERE id = 1');
    expect(await values('t', 3)).toEqual([
      'c {"id":1,"a":"ok","b":["ok"]}',
      'c {"id":2,"a":"so, so","b":["ok","so, so",null]}',
      'u {"id":1,"a":"fine","b":["fine"]}',
    ]);
    expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 0 });
  });

  it('C55 reads a table made again by its new columns only, and tells when it is not published any more', async () => {
    await source.sql.query('CREATE TABLE t (id int PRIMARY KEY, b text); CREATE TABLE u (id int PRIMARY KEY)');
    await source.topics(['t', 'u']);
    const capture = await source.started(['t', 'u']);
    await source.sql.query(`INSERT INTO t VALUES (1, 'x')`);
    // Published again in the transaction that makes it: nothing of it is missing.
    await source.sql.query(
      `BEGIN; DELETE FROM t; DROP TABLE t; CREATE TABLE t (n numeric, id int PRIMARY KEY);
       ALTER PUBLICATION "headwater_${source.name}" ADD TABLE ONLY t; INSERT INTO t VALUES (1.50, 1); COMMIT`,
    );
    await source.sql.query('UPDATE t SET n = 2.50');
    expect(await values('t', 4)).toEqual([
      'c {"id":1,"b":"x"}',
      'd ',
      'c {"n":"1.50","id":1}',
      'u {"n":"2.50","id":1}',
    ]);
    expect(capture.status().unpublished).toEqual([]);
    // Made again and left out: its rows never reach the stream.
    await source.sql.query('DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (5)');
    await eventually(() => expect(capture.status().unpublished).toEqual(['public.t']), { timeoutMs: 30_000 });
    expect(source.messages.filter((line) => /public\.t .*not published/.test(line))).toHaveLength(1);
    await source.sql.query('INSERT INTO u VALUES (1)');
    expect(await values('u', 1)).toEqual(['c {"id":1}']);
    await capture.stop();
    await source.slotFree();
    await expect(source.started(['t', 'u'])).rejects.toMatchObject({
      code: 'CDC_TABLE_UNPUBLISHED',
      message: expect.stringContaining('public.t'),
    });
    await source.started(['t', 'u'], { snapshot: 'when-needed' });
    await eventually(async () => expect(await source.fold('t')).toEqual(new Map([['5', '{"id":5}']])));
  });

  it('C55 reads a table made again from a publication for all tables', async () => {
    await source.sql.query('CREATE TABLE t (id int PRIMARY KEY, b text); CREATE TABLE other (id int PRIMARY KEY)');
    await source.sql.query(
      `CREATE PUBLICATION "headwater_${source.name}" FOR ALL TABLES WITH (publish_via_partition_root = true)`,
    );
    await source.topics(['t']);
    const capture = await source.started(['t']);
    await source.sql.query(`INSERT INTO t VALUES (1, 'x'); INSERT INTO other VALUES (1)`);
    await source.sql.query('DELETE FROM t');
    await source.sql.query(
      'DROP TABLE t; CREATE TABLE t (n numeric, id int PRIMARY KEY); INSERT INTO t VALUES (1.50, 1)',
    );
    expect(await values('t', 3)).toEqual(['c {"id":1,"b":"x"}', 'd ', 'c {"n":"1.50","id":1}']);
    expect(capture.status()).toMatchObject({ state: 'streaming', unpublished: [] });
  });

  it('records each version of a table before its first row, once, also across starts', async () => {
    await source.sql.query(
      `CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, b text, m mood[], x text); INSERT INTO t VALUES (1, 'x', '{ok}', 'secret')`,
    );
    await source.topics(['t', 'schemas']);
    const schemasTopic = source.topic('schemas');
    const tables = [{ table: 'public.t', topic: source.topic('t'), columns: { x: 'exclude', b: 'mask' } as const }];
    const capture = await source.started([], { tables, schemasTopic });
    await source.seenCount('t', 1);
    const versions = async () =>
      (await source.seen('schemas')).map(({ key, value, lsn }) => ({ key, lsn, ...JSON.parse(value!) }));
    const [id, b, m] = [
      { name: 'id', type: 'int4' },
      { name: 'b', type: 'text', rule: 'mask' },
      { name: 'm', type: 'mood[]' },
    ];
    expect(await versions()).toMatchObject([{ table: 'public.t', columns: [id, b, m], key: ['id'] }]);
    await source.sql.query(`INSERT INTO t VALUES (2, 'y')`);
    await source.sql.query(
      `BEGIN; INSERT INTO t VALUES (3, 'y'); ALTER TABLE t DROP m; INSERT INTO t VALUES (4, 'y'); COMMIT`,
    );
    await source.sql.query('ALTER TABLE t ALTER id TYPE int8');
    await source.seenCount('t', 4);
    // Only a row shows what is new.
    expect(await versions()).toHaveLength(2);
    await capture.stop();
    await source.slotFree();
    await source.sql.query(`INSERT INTO t VALUES (5, 'y')`);
    await source.started([], { tables, schemasTopic });
    const rows = await source.seenCount('t', 5);
    const all = await versions();
    expect(all.map(({ columns }) => columns)).toEqual([
      [id, b, m],
      [id, b],
      [{ name: 'id', type: 'int8' }, b],
    ]);
    expect(all.slice(1).map(({ lsn }) => lsn)).toEqual([rows[3]!.lsn, rows[4]!.lsn]);
    expect((await source.seen('schemas')).every(({ value }) => !value!.includes('secret'))).toBe(true);
  });
});
