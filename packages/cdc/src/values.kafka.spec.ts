import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(() => source.close());

/** The values of one row, written before the snapshot and touched after it. */
async function both(columns: string, row: string): Promise<string[]> {
  await source.sql.query(`CREATE TABLE t (id int PRIMARY KEY, ${columns})`);
  await source.sql.query(`INSERT INTO t VALUES (1, ${row})`);
  await source.topics(['t']);
  await source.started(['t']);
  await source.sql.query('UPDATE t SET id = id');
  return (await source.seenCount('t', 2)).map(({ value }) => value ?? '');
}

describe('values', () => {
  it('C66 keeps int8 digit for digit, as value and as key, in snapshot and stream', async () => {
    await source.sql.query('CREATE TABLE t (id int8 PRIMARY KEY, v int8)');
    const numbers = ['-9223372036854775808', '9007199254740993', '9223372036854775807'];
    for (const n of numbers) await source.sql.query('INSERT INTO t VALUES ($1, $1)', [n]);
    await source.topics(['t']);
    await source.started(['t']);
    await source.sql.query('UPDATE t SET v = v');
    const seen = await source.seenCount('t', 6);
    const expected = numbers.map((n) => [n, `{"id":"${n}","v":"${n}"}`]);
    expect(seen.slice(0, 3).map(({ key, value }) => [key, value])).toEqual(expected);
    expect(seen.slice(3).map(({ key, value }) => [key, value])).toEqual(expected);
  });

  it('C67 keeps numeric as exact text', async () => {
    const digits = '1234567890123456789012345678.1234567890';
    const values = await both(
      'a numeric, b numeric(40,10), c numeric, d numeric, e numeric, f numeric',
      `'1.10', '${digits}', 'NaN', 'Infinity', '-Infinity', '1234567890123456789012345678901234567890'`,
    );
    const expected = `{"id":1,"a":"1.10","b":"${digits}","c":"NaN","d":"Infinity","e":"-Infinity","f":"1234567890123456789012345678901234567890"}`;
    expect(values).toEqual([expected, expected]);
  });

  it('C68 keeps times at their edges, whatever the database asks for', async () => {
    await source.sql.query(
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database());
       EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database()); END $$`,
    );
    const values = await both(
      'a timestamptz, b timestamptz, c timestamp, d date, e date, f time, g timetz, h timestamptz, i timestamptz, j interval',
      `'2026-01-31 23:59:59.123456+00', 'infinity', '2026-01-31 10:00:00.5', '4713-01-01 BC', '-infinity', '24:00:00',
       '12:30:00.25+05:30', '294276-12-31 23:59:59.999999+00', '0044-03-15 12:00:00+00 BC', '1 mon 2 days 03:04:05.000006'`,
    );
    const expected =
      '{"id":1,"a":"2026-01-31T23:59:59.123456Z","b":"infinity","c":"2026-01-31T10:00:00.500000","d":"4713-01-01 BC","e":"-infinity",' +
      '"f":"24:00:00.000000","g":"12:30:00.250000+05:30","h":"294276-12-31T23:59:59.999999Z","i":"0044-03-15 12:00:00+00 BC","j":"P1M2DT3H4M5.000006S"}';
    expect(values).toEqual([expected, expected]);
  });

  it('keeps json, bytes, arrays, composites and nulls', async () => {
    await source.sql.query(
      `CREATE TYPE mood AS ENUM ('ok', 'so so'); CREATE DOMAIN qty AS int8; CREATE TYPE pair AS (q qty, t text, m mood[])`,
    );
    const values = await both(
      'a jsonb, b bytea, c int[], d text[], e qty, f pair, g text, h text, i json, j bool, k float8, l float8, m numeric[], n bytea, o money',
      `'{"n": 12345678901234567890.123, "l": [1e2, 12345678901234567890]}', '\\x00ff', '[0:2]={1,2,3}', ARRAY[NULL,'NULL','"a\\',''], 7,
       ROW(9, 'x,"y"', ARRAY['so so']::mood[]), NULL, '', '{"z":  -0}', true, 'NaN', 1e20, '{{1.10,2},{NULL,3}}', '', '1.5'`,
    );
    const expected =
      '{"id":1,"a":{"l": [100, 12345678901234567890], "n": 12345678901234567890.123},"b":"AP8=","c":[1,2,3],"d":[null,"NULL","\\"a\\\\",""],"e":"7",' +
      '"f":{"q":"9","t":"x,\\"y\\"","m":["so so"]},"g":null,"h":"","i":{"z":  -0},"j":true,"k":"NaN","l":1e+20,"m":[["1.10","2"],[null,"3"]],"n":"","o":"$1.50"}';
    expect(values).toEqual([expected, expected]);
  });

  it('C59 C60 keeps an unchanged TOAST value distinct from null', async () => {
    for (const [table, identity] of [
      ['t', 'DEFAULT'],
      ['u', 'FULL'],
    ] as const) {
      await source.sql.query(
        `CREATE TABLE ${table} (id int PRIMARY KEY, n int, a text, b text[], c jsonb, d text);
         ALTER TABLE ${table} ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL, REPLICA IDENTITY ${identity}`,
      );
    }
    await source.topics(['t', 'u']);
    await source.started(['t', 'u']);
    const long = 'x'.repeat(100_000);
    for (const table of ['t', 'u']) {
      await source.sql.query(`INSERT INTO ${table} VALUES (1, 0, $1, ARRAY[$1], to_jsonb($1::text), NULL)`, [long]);
      await source.sql.query(`UPDATE ${table} SET n = 1`);
      const seen = await source.seenCount(table, 2);
      expect(seen[1]!.value).toBe(`{"id":1,"n":1,"a":"${long}","b":["${long}"],"c":"${long}","d":null}`);
    }
  });

  it('C59 names an unchanged TOAST value in hw_unchanged instead of reading it again, where that is asked for', async () => {
    await source.sql.query(
      'CREATE TABLE t (id int PRIMARY KEY, n int, a text, b text[]); ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL',
    );
    await source.topics(['t']);
    await source.started([], { tables: [{ table: 'public.t', topic: source.topic('t'), toast: 'mark' }] });
    await source.sql.query(`INSERT INTO t VALUES (1, 0, repeat('x', 100000), NULL)`);
    await source.sql.query('UPDATE t SET n = 1');
    const seen = await source.seenCount('t', 2);
    expect(seen[1]!.value).toBe('{"id":1,"n":1,"b":null}');
    expect(seen[1]!.record.headers.find(([name]) => name === 'hw_unchanged')?.[1]?.toString()).toBe('["a"]');
  });

  it('C59 names an unchanged TOAST value in hw_unchanged when its row is gone', async () => {
    await source.sql.query(
      'CREATE TABLE t (id int PRIMARY KEY, n int, a text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL',
    );
    await source.topics(['t']);
    await source.started(['t']);
    await source.sql.query(`INSERT INTO t VALUES (1, 0, repeat('x', 100000))`);
    await source.sql.query('BEGIN; UPDATE t SET n = 1; DELETE FROM t; COMMIT');
    const seen = await source.seenCount('t', 3);
    expect(seen[1]!.value).toBe('{"id":1,"n":1}');
    expect(seen[1]!.record.headers.find(([name]) => name === 'hw_unchanged')?.[1]?.toString()).toBe('["a"]');
    expect(seen[2]!.value).toBeUndefined();
  });

  it('C47 C58 refuses tables it cannot capture, all in one error', async () => {
    await source.sql.query(
      `CREATE TABLE nokey (a int, b text); CREATE TABLE nothing (a int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
       CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
       CREATE TABLE indexed (a int PRIMARY KEY, b int NOT NULL UNIQUE); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_b_key`,
    );
    await expect(source.started(['nokey', 'nothing', 'unlogged', 'indexed', 'missing'])).rejects.toMatchObject({
      code: 'CDC_TABLES_INVALID',
      facts: {
        faults: [
          expect.stringMatching(/^public.nokey: no primary key.*keyColumns/),
          expect.stringMatching(/^public.nothing: .*REPLICA IDENTITY DEFAULT/),
          expect.stringMatching(/^public.unlogged: .*SET LOGGED/),
          expect.stringMatching(/^public.indexed: key \(a\) is not the replica identity \(b\)/),
          expect.stringMatching(/^public.missing: no such table/),
        ],
      },
    });
    expect(await source.slotFacts()).toBeUndefined();
  });

  it('C47 C58 uses declared key columns with full identity, and an identity index that is the key', async () => {
    await source.sql.query(
      `CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL;
       CREATE TABLE u (a int PRIMARY KEY, b int NOT NULL UNIQUE); ALTER TABLE u REPLICA IDENTITY USING INDEX u_b_key`,
    );
    await source.topics(['t', 'u']);
    await source.started([], {
      tables: [
        { table: 'public.t', topic: source.topic('t'), keyColumns: ['a', 'b'] },
        { table: 'public.u', topic: source.topic('u'), keyColumns: ['b'] },
      ],
    });
    await source.sql.query(`INSERT INTO t VALUES (1, 'x'); UPDATE t SET b = 'y'; DELETE FROM t`);
    await source.sql.query('INSERT INTO u VALUES (1, 10); UPDATE u SET a = 2; DELETE FROM u');
    expect((await source.seenCount('t', 4)).map(({ key, op }) => [key, op])).toEqual([
      ['["1","x"]', 'c'],
      ['["1","x"]', 'd'],
      ['["1","y"]', 'u'],
      ['["1","y"]', 'd'],
    ]);
    expect((await source.seenCount('u', 3)).map(({ key, op }) => [key, op])).toEqual([
      ['10', 'c'],
      ['10', 'u'],
      ['10', 'd'],
    ]);
  });

  it('C57 C61 stops at a changed key and at a TRUNCATE, after publishing what came before', async () => {
    await source.sql.query('CREATE TABLE t (id int PRIMARY KEY, b int NOT NULL); CREATE TABLE u (id int PRIMARY KEY)');
    await source.topics(['t', 'u']);
    const capture = await source.started(['t', 'u']);
    await source.sql.query('INSERT INTO t VALUES (1, 1)');
    await source.sql.query('TRUNCATE t, u');
    await expect(capture.finished).rejects.toMatchObject({
      code: 'CDC_TRUNCATE_UNSUPPORTED',
      message: expect.stringMatching(/public\.t, public\.u .*\d+\/[0-9A-F]+/),
    });
    expect(await source.seen('t')).toHaveLength(1);
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    const again = await source.started(['t', 'u'], { snapshot: 'when-needed' });
    await source.sql.query('ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, b)');
    await source.sql.query('INSERT INTO t VALUES (2, 2)');
    await expect(again.finished).rejects.toMatchObject({
      code: 'CDC_KEY_CHANGED',
      facts: { before: ['id'], now: ['id', 'b'] },
    });
    expect(await source.fold('t')).toEqual(new Map());
  });
});
