import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, seededRandom } from '@headwater/testing';
import { openSession } from './postgres-session.js';
import { Source } from './source.testing.js';
import { arrayOf, compositeOf, difference, domainOf, EXTENSIONS, rowJson, SCALARS } from './type-oracle.testing.js';
import type { SampleType } from './type-oracle.testing.js';

const ROWS = 25;

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(async () => {
  await source.close();
});

/** The values of one row, written before the snapshot and touched after it. */
async function both(columns: string, row: string): Promise<string[]> {
  await source.sql.query(`CREATE TABLE t (id int PRIMARY KEY, ${columns})`);
  await source.sql.query(`INSERT INTO t VALUES (1, ${row})`);
  await source.topics(['t']);
  await source.started(['t']);
  await source.sql.query('UPDATE t SET id = id');
  return (await source.seenCount('t', 2)).map(({ value }) => value ?? '');
}

const twice = (json: string) => [json, json];

describe('types', () => {
  it('C52 C66 C67 C68 C70 C71 C72 C73 C74 random values of every type read the same from snapshot and stream, and as Postgres prints them', async () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
    const random = seededRandom(seed);
    const { rows: available } = await source.sql.query<{ name: string }>('SELECT name FROM pg_available_extensions');
    const installed = Object.keys(EXTENSIONS).filter((name) => available.some((row) => row.name === name));
    for (const name of installed) await source.sql.query(`CREATE EXTENSION ${name}`);
    await source.sql.query(`CREATE TYPE mood AS ENUM ('ok', 'so so', '"x"', 'NULL'); CREATE DOMAIN qty AS int8;
      CREATE DOMAIN qties AS int8[]; CREATE DOMAIN qty2 AS qty;`);
    const named = (name: string) => SCALARS.find((type) => type.name === name)!;
    const mood: SampleType = {
      ...named('text'),
      name: 'mood',
      value: (r) => r.pick([`'ok'`, `'so so'`, `'"x"'`, `'NULL'`]),
    };
    const qty = domainOf('qty', named('int8'));
    const pair = compositeOf('pair', {
      q: qty,
      'T "x"': named('text'),
      m: arrayOf(mood),
      j: named('jsonb'),
      b: named('bytea'),
    });
    await source.sql.query(
      'CREATE TYPE pair AS (q qty, "T ""x""" text, m mood[], j jsonb, b bytea); CREATE DOMAIN dpair AS pair;',
    );
    const nested = compositeOf('nested', { at: named('timestamptz'), p: pair, ps: arrayOf(pair) });
    await source.sql.query('CREATE TYPE nested AS (at timestamptz, p pair, ps pair[])');
    const scalars = [...SCALARS, ...installed.map((name) => EXTENSIONS[name]!), mood, qty, domainOf('qty2', qty)];
    const types = [
      ...scalars,
      ...scalars.filter(({ name }) => !name.startsWith('qty2')).map(arrayOf),
      domainOf('qties', arrayOf(named('int8'))),
      pair,
      domainOf('dpair', pair),
      arrayOf(pair),
      nested,
      arrayOf(nested),
    ];
    await source.sql.query(
      `CREATE TABLE t (id int PRIMARY KEY, ${types.map(({ name }, i) => `c${i} ${name}`).join(', ')})`,
    );
    for (let id = 1; id <= ROWS; id++) {
      const values = types.map((type) => (random.chance(0.1) ? 'NULL' : `${type.value(random)}::${type.name}`));
      await source.sql.query(`INSERT INTO t VALUES (${id}, ${values.join(', ')})`).catch((error: Error) => {
        throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
      });
    }
    await source.topics(['t']);
    await source.started(['t']);
    await source.sql.query('UPDATE t SET id = id');
    const seen = await source.seenCount('t', 2 * ROWS);
    const oracle = await openSession(source.url, 'oracle');
    // Servers that compile queries take minutes over one as long as this.
    await oracle.query('SET jit = off');
    const { rows } = await oracle.query<{ id: number; json: string }>(
      `SELECT id, ${rowJson(types)} AS json FROM t ORDER BY id`,
    );
    await oracle.end();
    for (const { id, json } of rows) {
      const of = seen.filter(({ key }) => key === String(id));
      expect(of.map(({ op }) => op)).toEqual(['r', 'u']);
      expect({ seed, id, snapshot: difference(of[0]!.value, json), stream: difference(of[1]!.value, json) }).toEqual({
        seed,
        id,
      });
    }
  });

  it('C69 does not depend on time zone and styles of process, role and database', async () => {
    const types = [
      'timestamptz',
      'timestamp',
      'date',
      'time',
      'timetz',
      'interval',
      'bytea',
      'float8',
      'tstzrange',
      'money',
    ];
    await source.sql.query(
      `CREATE TABLE t (id int PRIMARY KEY, ${types.map((type, i) => `c${i} ${type}`).join(', ')})`,
    );
    await source.sql
      .query(`INSERT INTO t VALUES (1, '2026-03-29 01:30:00.5+01', '2026-03-29 02:30', '2026-01-02', '12:00', '12:00+05:30',
      '1 mon 2 days 03:04:05.000006', '\\x00ff', 0.1::float8 + 0.2, '[2026-01-01 00:00+00,)', '1.5')`);
    await source.topics(['t', 'other']);
    await source.started(['t']);
    const role = `${source.name}_tz`;
    await source.sql.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'p'`);
    try {
      for (const setting of [
        `timezone = 'America/St_Johns'`,
        `datestyle = 'SQL, DMY'`,
        `intervalstyle = 'sql_standard'`,
        `bytea_output = 'escape'`,
        'extra_float_digits = 0',
      ]) {
        await source.sql.query(`ALTER ROLE ${role} SET ${setting}`);
        await source.sql.query(
          `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET ${setting.replaceAll("'", "''")}', current_database()); END $$`,
        );
      }
      const url = new URL(source.url);
      [url.username, url.password] = [role, 'p'];
      await source.process(
        [],
        {
          name: `${source.name}_other`,
          connectionString: url.href,
          tables: [{ table: 'public.t', topic: source.topic('other') }],
        },
        { ...process.env, TZ: 'Asia/Kolkata', PGTZ: 'Asia/Tokyo', PGDATESTYLE: 'German' },
      );
      await source.sql.query('UPDATE t SET id = id');
      const values = [...(await source.seenCount('t', 2)), ...(await source.seenCount('other', 2))].map(
        ({ value }) => value,
      );
      const wanted =
        '{"id":1,"c0":"2026-03-29T00:30:00.500000Z","c1":"2026-03-29T02:30:00.000000","c2":"2026-01-02","c3":"12:00:00.000000","c4":"12:00:00.000000+05:30",' +
        '"c5":"P1M2DT3H4M5.000006S","c6":"AP8=","c7":0.30000000000000004,"c8":"[\\"2026-01-01 00:00:00+00\\",)","c9":"$1.50"}';
      expect(values).toEqual([...twice(wanted), ...twice(wanted)]);
    } finally {
      await Promise.all(source.processes.map((started) => started.kill()));
      await source.sql.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`);
      await eventually(() => source.sql.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`));
      await source.log.admin.deleteTopics([`headwater.cdc.${source.name}_other.position`]);
    }
  });

  it('C70 keeps the signs of an interval', async () => {
    const values = await both(
      'a interval, b interval, c interval',
      `'1 mon 2 days 03:04:05.000006', '1 mon -2 days 03:04:05.000006', '-1 days'`,
    );
    expect(values).toEqual(twice('{"id":1,"a":"P1M2DT3H4M5.000006S","b":"P1M-2DT3H4M5.000006S","c":"P-1D"}'));
  });

  it('C71 keeps numbers inside of json and jsonb digit for digit, at any depth', async () => {
    const deep = '{"a": [{"b": [12345678901234567890.123, 98765432109876543210]}]}';
    const values = await both('a jsonb, b json, c json', `'${deep}', '${deep}', '[1e400, -0, 1E-7]'`);
    expect(values).toEqual(twice(`{"id":1,"a":${deep},"b":${deep},"c":[1e400, -0, 1E-7]}`));
  });

  it('C72 keeps bytes, bits, money, addresses and ranges in the form of the record table', async () => {
    await source.sql.query(
      'CREATE TABLE t (id int PRIMARY KEY, a bytea, b bytea, c bit(3), d varbit, e money, f inet, g int4range, h numrange, i tstzrange, j int4multirange, k int4range)',
    );
    const big = Buffer.alloc(1_048_576, 'ab\u0000');
    await source.sql.query(
      `INSERT INTO t VALUES (1, '', $1, '101', '', '-1.5', '10.0.0.1/8', 'empty', '(,1.50]', '[-infinity,infinity]', '{[1,3),[5,6)}', '[1,3]')`,
      [big],
    );
    // What base64 makes of it is above the default limit of a topic.
    await source.topics(['t'], 1, { 'max.message.bytes': '2000000' });
    await source.started(['t']);
    await source.sql.query('UPDATE t SET id = id');
    const wanted = `{"id":1,"a":"","b":"${big.toString('base64')}","c":"101","d":"","e":"-$1.50","f":"10.0.0.1/8","g":"empty","h":"(,1.50]","i":"[-infinity,infinity]","j":"{[1,3),[5,6)}","k":"[1,4)"}`;
    expect((await source.seenCount('t', 2)).map(({ value }) => value === wanted)).toEqual([true, true]);
  });

  it('C73 keeps arrays nested, empty and with nulls; lower bounds are dropped as documented', async () => {
    await source.sql.query(`CREATE TYPE mood AS ENUM ('ok', 'so so')`);
    const values = await both(
      'a int[], b text[], c numeric[], d mood[], e int[], f box[], g timestamptz[]',
      `'[0:2]={1,2,3}', ARRAY[NULL,'NULL','"','a,b','{}'], '{{1.10,NaN},{NULL,-3}}', '{"so so",ok}', '{}',
       ARRAY[box '((1,1),(0,0))', NULL], '{2026-01-31 23:59:59+00}'`,
    );
    const wanted =
      '{"id":1,"a":[1,2,3],"b":[null,"NULL","\\"","a,b","{}"],"c":[["1.10","NaN"],[null,"-3"]],"d":["so so","ok"],"e":[],"f":["(1,1),(0,0)",null],"g":["2026-01-31T23:59:59.000000Z"]}';
    expect(values).toEqual(twice(wanted));
  });

  it('C74 takes a domain as its base, a composite and an hstore as objects, and an unknown type as Postgres prints it', async () => {
    await source.sql.query(
      'CREATE DOMAIN qty AS int8; CREATE TYPE pair AS (q qty, t text); CREATE EXTENSION hstore; CREATE EXTENSION ltree',
    );
    const values = await both(
      'a qty, b pair[], c hstore, d ltree, e pair, f hstore[]',
      `9007199254740993, ARRAY[ROW(9, 'x,"y"')::pair, ROW(NULL, '')::pair, NULL], 'a=>"1", b=>NULL, "q""=>"=>""', 'a.b', NULL, ARRAY['k=>v'::hstore]`.replace(
        `"q""=>"=>""`,
        `"q\\"=>"=>""`,
      ),
    );
    const wanted =
      '{"id":1,"a":"9007199254740993","b":[{"q":"9","t":"x,\\"y\\""},{"q":null,"t":""},null],"c":{"a":"1","b":null,"q\\"=>":""},"d":"a.b","e":null,"f":[{"k":"v"}]}';
    expect(values).toEqual(twice(wanted));
  });
});
