import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy, postgresPair, STANDBY_SLOT } from '@headwater/testing';
import type { FaultProxy, PostgresPair, PostgresPairOptions } from '@headwater/testing';
import { Client } from 'pg';
import { formatLsn, parseLsn } from './lsn.js';
import { Source } from './source.testing.js';

// Named so that npm test sweeps it after a kill.
const directory = resolve('.headwater', `test-${process.pid}`, 'pair');
let pair: PostgresPair;
let source: Source;
let promoted: Client | undefined;
let address: FaultProxy | undefined;

async function open(settings: Omit<PostgresPairOptions, 'directory'> = {}): Promise<void> {
  pair = await postgresPair({ directory, ...settings });
  source = await Source.open(pair.primary.databaseUrl);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
}

afterEach(async () => {
  await promoted?.end();
  promoted = undefined;
  // Its database is dropped on the server it was made on.
  await pair.primary.server.start();
  await source.close();
  await address?.close();
  address = undefined;
  await pair.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** The URL of the source's database on the standby. */
function onStandby(): string {
  const url = new URL(source.url);
  url.port = new URL(pair.standby.databaseUrl).port;
  return url.href;
}

async function standbyClient(): Promise<Client> {
  const client = new Client({ connectionString: onStandby() });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function promote(): Promise<Client> {
  await pair.promote();
  return (promoted = await standbyClient());
}

describe('a standby that takes over', () => {
  it('C36 is refused when it was promoted behind the position, with or without a slot, until a snapshot is taken', async () => {
    await open();
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'both'), (2, 'both')`);
    await source.seenCount('a', 2);
    await pair.caughtUp();
    await pair.standby.server.stop();
    for (let id = 3; id <= 20; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'lost')`);
    await source.seenCount('a', 20);
    await capture.stop();
    await pair.primary.server.kill();
    await pair.standby.server.start();
    const sql = await promote();
    const { endLsn } = await source.lastPosition();
    const { rows } = await sql.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
    expect(parseLsn(rows[0]!.lsn) < endLsn).toBe(true);

    const connectionString = onStandby();
    const diverged = {
      code: 'CDC_TIMELINE_DIVERGED',
      message: expect.stringMatching(
        new RegExp(`timeline 2 left timeline 1 at [0-9A-F]+/[0-9A-F]+, before the position ${formatLsn(endLsn)}`),
      ),
    };
    await expect(source.started(['a'], { connectionString })).rejects.toMatchObject(diverged);
    // The trap: a slot that was made by hand, and new rows at LSNs that the position has passed.
    await sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [source.slot]);
    await sql.query(`INSERT INTO a VALUES (3, 'new'); INSERT INTO a VALUES (4, 'new')`);
    await expect(source.started(['a'], { connectionString })).rejects.toMatchObject(diverged);
    expect(await source.seen('a')).toHaveLength(20);
    expect((await source.lastPosition()).endLsn).toBe(endLsn);

    await source.started(['a'], { connectionString, snapshot: 'when-needed' });
    await sql.query(`INSERT INTO a VALUES (5, 'streamed')`);
    await source.foldEqualsTable(sql);
  });

  it('C37 goes on with a failover slot on the promoted standby: rows once, no snapshot', async () => {
    await open({
      primarySettings: { synchronized_standby_slots: STANDBY_SLOT },
      standbySettings: { sync_replication_slots: 'on' },
    });
    const target = { host: '127.0.0.1', port: Number(new URL(source.url).port) };
    address = await faultProxy({ target, protocol: 'raw' });
    const url = new URL(source.url);
    url.port = String(address.port);
    await source.sql.query(`INSERT INTO a VALUES (0, 'before')`);
    const capture = await source.started(['a'], { connectionString: url.href });
    await source.seenCount('a', 1);
    const writer = await source.client();
    const writing = (async () => {
      // Ends with the server.
      for (let id = 1; ; id++) await writer.query(`INSERT INTO a VALUES (${id}, 'primary')`);
    })().catch(() => {});
    promoted = await standbyClient();
    await eventually(
      async () => {
        const { rows } = await promoted!.query<{ ready: boolean }>(
          'SELECT synced AND NOT temporary AND failover AS ready FROM pg_replication_slots WHERE slot_name = $1',
          [source.slot],
        );
        expect(rows).toEqual([{ ready: true }]);
      },
      // Its worker sleeps up to 30 s between two looks.
      { timeoutMs: 120_000 },
    );
    await promoted.end();
    await source.seenCount('a', 100);
    await pair.primary.server.kill();
    await writing;
    target.port = Number(new URL(pair.standby.databaseUrl).port);
    const sql = await promote();
    await sql.query(`INSERT INTO a VALUES (-1, 'standby')`);
    const { rows } = await sql.query<{ id: number }>('SELECT id FROM a WHERE id > 0 ORDER BY id');
    const seen = await source.seenCount('a', rows.length + 2, 30_000);
    expect(seen.map(({ key }) => Number(key))).toEqual([0, ...rows.map(({ id }) => id), -1]);
    expect(seen.map(({ op }) => op).filter((op) => op === 'r')).toHaveLength(1);
    await source.foldEqualsTable(sql);
    expect((await source.lastPosition()).timeline).toBe(2);
    expect(capture.status().state).toBe('streaming');
  });
});
