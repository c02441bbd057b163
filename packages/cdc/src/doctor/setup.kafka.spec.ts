import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { devServices, eventually } from '@headwater/testing';
import type { DevServices } from '@headwater/testing';
import { openReplicationSession } from '../postgres-session.js';
import { Source } from '../source.testing.js';

// Named so that npm test sweeps it after a kill.
const directory = resolve('.headwater', `test-${process.pid}`);
const ROLE = 'capture_me';
let server: DevServices;
let source: Source;

async function start(postgresSettings: Record<string, string>, fresh = false): Promise<void> {
  server = await devServices({
    directory,
    mode: 'auto',
    fresh,
    env: { ...process.env, DATABASE_URL: '' },
    postgresSettings,
  });
}

/** Postgres of its own, Kafka of the run. */
async function restart(postgresSettings: Record<string, string>): Promise<void> {
  await server.stop();
  await start(postgresSettings);
}

/** The database as another role sees it. */
function as(role: string): string {
  const url = new URL(source.url);
  [url.username, url.password] = [role, 'secret'];
  return url.href;
}

beforeAll(() => start({}, true));
afterAll(async () => {
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

describe('a server that is not set up', () => {
  beforeEach(async () => {
    source = await Source.open(server.databaseUrl);
    await source.sql.query(`DROP ROLE IF EXISTS ${ROLE}; CREATE ROLE ${ROLE} LOGIN PASSWORD 'secret'`);
    await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE nokey (id int)');
    await source.topics(['a']);
  });
  afterEach(async () => {
    await source.sql.query(`DROP OWNED BY ${ROLE}`).catch(() => undefined);
    await source.close();
  });

  it('C97 is refused with all of its faults in one error, each with its remedy', async () => {
    const { url } = source;
    await source.sql.end();
    await restart({ wal_level: 'replica', max_replication_slots: '1', max_wal_senders: '1' });
    source.sql = await source.client();
    await source.sql.query(`SELECT pg_create_physical_replication_slot('taken')`);
    const taken = await openReplicationSession(url, 'taken');
    try {
      const starting = source.started(['a', 'nokey'], { connectionString: as(ROLE) });
      await expect(starting).rejects.toMatchObject({ code: 'CDC_SERVER_NOT_READY' });
      const faults = await starting.catch((error: { facts: { faults: string[] } }) => error.facts.faults);
      expect(faults).toEqual([
        expect.stringMatching(/wal_level is "replica". Set wal_level = logical and restart/),
        expect.stringMatching(/no slot is free: 1 of max_replication_slots = 1.*Drop what nobody reads/),
        expect.stringMatching(/no walsender is free.*Set max_wal_senders = 3 or more/),
        expect.stringMatching(/may not replicate. ALTER ROLE "capture_me" REPLICATION/),
        expect.stringMatching(/may not read public.a. GRANT SELECT ON public.a TO "capture_me"/),
        expect.stringMatching(/may not read public.nokey. GRANT SELECT/),
        expect.stringMatching(/nokey: no primary key. Add one/),
      ]);
      expect(await source.seen('a')).toEqual([]);
    } finally {
      await taken.end();
      await source.sql.query(`SELECT pg_drop_replication_slot('taken')`);
      await source.sql.end();
      await restart({});
      source.sql = await source.client();
    }
  });

  it('C97 names the line that pg_hba.conf lacks', async () => {
    const hba = join(directory, 'postgres', 'data', 'pg_hba.conf');
    const before = readFileSync(hba, 'utf8');
    writeFileSync(hba, 'host all postgres 127.0.0.1/32 scram-sha-256\n');
    try {
      await source.sql.query('SELECT pg_reload_conf()');
      await eventually(() =>
        expect(source.started(['a'], { connectionString: as(ROLE) })).rejects.toMatchObject({
          code: 'CDC_SERVER_NOT_READY',
          message: expect.stringMatching(
            new RegExp(
              `no pg_hba.conf entry for host "127.0.0.1", user "${ROLE}".*Add to pg_hba.conf: host "[^"]+" "${ROLE}"`,
            ),
          ),
        }),
      );
    } finally {
      writeFileSync(hba, before);
      await source.sql.query('SELECT pg_reload_conf()');
    }
  });

  it.each([
    [
      'a wrong password',
      (url: URL) => void (url.password = 'wrong'),
      /password of role "[^"]+" is refused.*ALTER ROLE/,
    ],
    ['a database that is not there', (url: URL) => void (url.pathname = '/nowhere'), /no database "nowhere"/],
    ['TLS where the server has none', (url: URL) => url.searchParams.set('sslmode', 'verify-full'), /Set ssl = on/],
  ])('is refused at once for %s, with what to do', async (_, change, message) => {
    const url = new URL(source.url);
    change(url);
    const capture = source.capture(['a'], { connectionString: url.href });
    await expect(capture.start()).rejects.toMatchObject({
      code: 'CDC_SERVER_NOT_READY',
      message: expect.stringMatching(message),
    });
    expect(capture.status().state).toBe('halted');
  });

  it('C96 is refused for an unlogged or temporary table, by its name', async () => {
    await source.sql.query('CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)');
    await expect(source.started(['a', 'fleeting'])).rejects.toMatchObject({
      code: 'CDC_TABLES_INVALID',
      message: expect.stringMatching(/1 fault.*[^]*public.fleeting: unlogged.*ALTER TABLE public.fleeting SET LOGGED/),
    });
    const session = await source.client();
    await session.query('CREATE TEMPORARY TABLE passing (id int PRIMARY KEY)');
    const { rows } = await session.query<{ schema: string }>(
      'SELECT pg_my_temp_schema()::regnamespace::text AS schema',
    );
    const table = `${rows[0]!.schema}.passing`;
    await expect(source.started([], { tables: [{ table, topic: source.topic('passing') }] })).rejects.toMatchObject({
      code: 'CDC_TABLES_INVALID',
      message: expect.stringContaining(`${table}: temporary`),
    });
    expect(await source.slotFacts()).toBeUndefined();
  });

  it('runs under a role that may do no more than the documented one', async () => {
    const { name } = source;
    await source.sql.query('CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE nokey ADD PRIMARY KEY (id)');
    const page = readFileSync(resolve('docs/operations.md'), 'utf8');
    const sql = /<!-- role:capture -->\n+```sql\n([^]*?)```/.exec(page)![1]!;
    // Names of the page, as they are here.
    const here = sql
      .replaceAll('shop_capture', ROLE)
      .replaceAll('public.orders, public.order_lines', 'public.a, public.nokey')
      .replaceAll('ONLY public.orders, ONLY public.order_lines', 'ONLY public.a, ONLY public.nokey')
      .replaceAll('headwater_shop', `headwater_${name}`)
      .replaceAll('DATABASE shop', `DATABASE ${new URL(source.url).pathname.slice(1)}`)
      .replace(/CREATE ROLE[^;]*;/, `ALTER ROLE ${ROLE} REPLICATION;`);
    await source.sql.query('REVOKE ALL ON DATABASE template1 FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC');
    await source.sql.query(here);
    await source.topics(['nokey']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'snapshot'); INSERT INTO nokey VALUES (1)`);
    const capture = await source.started(['a', 'nokey'], { connectionString: as(ROLE) });
    await source.sql.query(`INSERT INTO a VALUES (2, 'stream')`);
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ value }) => value)).toEqual(['{"id":1,"b":"snapshot"}', '{"id":2,"b":"stream"}']);
    await capture.stop();
    const session = await source.clientOf(as(ROLE));
    for (const forbidden of [
      'SELECT * FROM hidden',
      'DELETE FROM a',
      'CREATE TABLE mine (id int)',
      `DROP PUBLICATION headwater_${name}`,
    ])
      await expect(session.query(forbidden)).rejects.toMatchObject({ code: '42501' });
    // Without the grants: the fault names what is missing.
    await source.sql.query(`REVOKE SELECT ON nokey FROM ${ROLE}; DROP PUBLICATION headwater_${name}`);
    await expect(source.started(['a', 'nokey'], { connectionString: as(ROLE) })).rejects.toMatchObject({
      code: 'CDC_SERVER_NOT_READY',
      message: expect.stringMatching(/2 fault[^]*GRANT SELECT ON public.nokey[^]*CREATE PUBLICATION "headwater_/),
    });
  });
});

describe('a slot that the server gave up', () => {
  beforeEach(async () => {
    source = await Source.open(server.databaseUrl);
    await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
    await source.topics(['a']);
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await capture.stop();
    await source.slotFree();
  });
  afterEach(() => source.close());

  it('C98 is named with the idle time-out that took it, and taken anew when needed', async () => {
    await source.sql.query(`ALTER SYSTEM SET idle_replication_slot_timeout = '1s'`);
    await source.sql.query('SELECT pg_reload_conf()');
    await eventually(
      async () => {
        await source.sql.query('CHECKPOINT');
        const { rows } = await source.sql.query('SELECT invalidation_reason AS r FROM pg_replication_slots');
        expect(rows).toEqual([{ r: 'idle_timeout' }]);
      },
      { timeoutMs: 30_000 },
    );
    await source.sql.query('ALTER SYSTEM RESET idle_replication_slot_timeout');
    await source.sql.query('SELECT pg_reload_conf()');
    await source.sql.query(`INSERT INTO a VALUES (2, 'y')`);
    await expect(source.started(['a'])).rejects.toMatchObject({
      code: 'CDC_SLOT_LOST',
      message: expect.stringMatching(/reason idle_timeout.*take a new snapshot/),
    });
    expect(await source.seen('a')).toHaveLength(1);
    await source.started(['a'], { snapshot: 'when-needed' });
    await source.foldEqualsTable();
  });

  it('C98 is refused after it was dropped and wal_level lowered, first for the level, then for the slot', async () => {
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.end();
    await restart({ wal_level: 'replica' });
    await expect(source.started(['a'])).rejects.toMatchObject({
      code: 'CDC_SERVER_NOT_READY',
      message: expect.stringMatching(/wal_level is "replica"/),
    });
    await restart({});
    source.sql = await source.client();
    await source.sql.query(`INSERT INTO a VALUES (2, 'y')`);
    await expect(source.started(['a'])).rejects.toMatchObject({ code: 'CDC_SLOT_MISSING' });
    expect(await source.seen('a')).toHaveLength(1);
    await source.started(['a'], { snapshot: 'when-needed' });
    await source.foldEqualsTable();
  });
});
