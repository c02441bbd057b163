import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { devServices, eventually } from '@headwater/testing';
import type { DevServices } from '@headwater/testing';
import { Client } from 'pg';
import { healthOf } from './engine.js';
import { formatLsn, parseLsn } from './lsn.js';
import { Source } from './source.testing.js';

// Named so that npm test sweeps it after a kill.
const directory = resolve('.headwater', `test-${process.pid}`);
let other: DevServices;
let source: Source;

beforeAll(async () => {
  other = await devServices({
    directory,
    // Postgres of its own, Kafka of the run.
    mode: 'auto',
    fresh: true,
    env: { ...process.env, DATABASE_URL: '' },
    postgresSettings: { max_slot_wal_keep_size: '1MB', min_wal_size: '32MB', max_wal_size: '32MB' },
  });
});
afterAll(async () => {
  await other.stop();
  rmSync(directory, { recursive: true, force: true });
});
afterEach(() => source.close());

async function open(serverUrl?: string): Promise<void> {
  source = await Source.open(serverUrl);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
}

async function publishedAndStopped(): Promise<void> {
  const capture = await source.started(['a']);
  await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x')`);
  await source.seenCount('a', 2);
  await capture.stop();
  await source.slotFree();
}

/** A refusal leaves topics, position and slot as they were. */
async function refused(error: object, connectionString = source.url): Promise<void> {
  const facts = async () => [(await source.seen('a')).length, await source.lastPosition(), await source.slotFacts()];
  const before = await facts();
  const capture = source.capture(['a'], { connectionString });
  await expect(capture.start()).rejects.toMatchObject(error);
  expect(healthOf(capture.status().state)).toBe('down');
  expect(await facts()).toEqual(before);
}

describe('a slot that was made again', () => {
  beforeEach(() => open());

  it('C33 C35 never takes the old position, on this cluster or on a new one with lower LSNs', async () => {
    const fresh = new Client({ connectionString: other.databaseUrl });
    await fresh.connect();
    try {
      const freshLsn = async () =>
        parseLsn((await fresh.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn')).rows[0]!.lsn);
      while ((await source.walLsn()) < (await freshLsn()) + 32n * 1024n * 1024n) {
        await source.sql.query(`SELECT pg_logical_emit_message(false, 'noise', 'x')`);
        await source.sql.query('SELECT pg_switch_wal()');
      }
      await publishedAndStopped();
      const [slot, publication] = [source.slot, `headwater_${source.name}`];
      await source.sql.query('SELECT pg_drop_replication_slot($1)', [slot]);
      await source.sql.query(`DELETE FROM a WHERE id = 1; INSERT INTO a VALUES (3, 'between')`);
      await source.sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
      await source.sql.query(`INSERT INTO a VALUES (4, 'after')`);
      await refused({ code: 'CDC_SLOT_AHEAD' });
      const again = await source.started(['a'], { snapshot: 'when-needed' });
      await source.foldEqualsTable();
      await again.stop();
      await source.slotFree();

      await fresh.query(
        `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a VALUES (1, 'new'), (9, 'new'); CREATE PUBLICATION "${publication}" FOR TABLE a`,
      );
      await fresh.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
      const { endLsn, systemId } = await source.lastPosition();
      expect((await freshLsn()) < endLsn).toBe(true);
      const { rows } = await fresh.query<{ id: string }>(
        'SELECT system_identifier::text AS id FROM pg_control_system()',
      );
      const found = rows[0]!.id;
      await refused(
        { code: 'CDC_OTHER_CLUSTER', message: expect.stringMatching(new RegExp(`${found}.*${systemId}`)) },
        other.databaseUrl,
      );
      const moved = await source.started(['a'], { snapshot: 'when-needed', connectionString: other.databaseUrl });
      await fresh.query(`INSERT INTO a VALUES (10, 'streamed'); DELETE FROM a WHERE id = 1`);
      await source.foldEqualsTable(fresh);
      await moved.stop();
    } finally {
      await fresh.query(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`);
      await fresh.query('DROP TABLE a');
      await fresh.end();
    }
  });
});

describe('a slot that the server gave up', () => {
  beforeEach(() => open(other.databaseUrl));

  it('C32 is refused, naming wal_status and max_slot_wal_keep_size, or leads to a snapshot when needed', async () => {
    await publishedAndStopped();
    expect(healthOf(source.captures[0]!.status().state)).toBe('down');
    await source.sql.query(`DELETE FROM a WHERE id = 1; INSERT INTO a VALUES (3, 'lost')`);
    await eventually(async () => {
      await source.sql.query(`SELECT pg_logical_emit_message(false, 'noise', repeat('x', 100000))`);
      await source.sql.query('SELECT pg_switch_wal()');
      await source.sql.query('CHECKPOINT');
      expect((await source.slotFacts())!.status).toBe('lost');
    });
    const end = formatLsn((await source.lastPosition()).endLsn);
    await refused({
      code: 'CDC_SLOT_LOST',
      message: expect.stringMatching(/wal_status=lost.*max_slot_wal_keep_size=1MB.*snapshot/),
    });
    expect(formatLsn((await source.lastPosition()).endLsn)).toBe(end);
    const again = await source.started(['a'], { snapshot: 'when-needed' });
    await source.sql.query(`INSERT INTO a VALUES (4, 'next')`);
    await source.foldEqualsTable();
    expect(healthOf(again.status().state)).toBe('up');
  });
});
