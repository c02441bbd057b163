import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { IsString } from 'class-validator';
import {
  ApplyRunner,
  Changelog,
  Database,
  Int64,
  Key,
  On,
  ensureSchema,
  type Change,
  type Log,
  type OutRecord,
} from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, testDatabase, uniqueName } from '@headwater/testing';
import { applyProjection } from './apply-projection.js';
import { consumerOf, tableOf, row, type ProjectionOptions } from './projection.js';
import { createTable } from './table.js';

let closing: (() => Promise<void>)[];
let log: Log;
let database: Database;
let topic: string;
let options: ProjectionOptions;
let warnings: string[];
let type: new () => object;

beforeEach(async () => {
  closing = [];
  warnings = [];
  const test = await testDatabase(process.env['DATABASE_URL']!);
  closing.push(() => test.drop());
  log = kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') });
  closing.push(() => log.close());
  database = new Database(test.url);
  closing.push(() => database.close());
  topic = uniqueName('accounts');
  options = {
    name: uniqueName('balances'),
    version: 1,
    columns: { id: 'text', owner: 'text', posted_cents: 'bigint', note: 'text' },
  };
  type = projectionOn(topic);
  await ensureSchema(database, createTable(options));
  await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
});

/** A projection of a changelog on a topic of this test alone. */
function projectionOn(changes: string): new () => object {
  @Changelog({ topic: changes })
  class Account {
    @Key()
    id!: string;
    @IsString()
    owner!: string;
    @Int64()
    postedCents!: bigint;
    note?: string;
  }
  class Balances {
    @On(Account)
    account({ key, after }: Change<Account>) {
      if (after === undefined) return row({ id: key });
      return row({ id: key, owner: after.owner, posted_cents: after.postedCents, note: after.note });
    }
  }
  return Balances;
}

function run(): ApplyRunner<unknown> {
  const logger = { log: () => undefined, error: () => undefined, warn: (text: string) => void warnings.push(text) };
  const runner = new ApplyRunner(applyProjection(type, new type(), options), { log, database, logger });
  closing.push(() => runner.stop());
  return runner;
}

function change(key: string | null, fields: Record<string, unknown> | string | null): OutRecord {
  const value = fields === null ? null : Buffer.from(typeof fields === 'string' ? fields : JSON.stringify(fields));
  return { topic, partition: 0, key: key === null ? null : Buffer.from(key), value };
}

const account = (id: string, cents: string, more: Record<string, unknown> = {}): OutRecord =>
  change(id, { id, owner: `owner of ${id}`, posted_cents: cents, ...more });

/** One transaction: the projection gets it as one batch, or cut where a fetch ends. */
async function produce(...records: readonly OutRecord[]): Promise<void> {
  const writer = log.writer({ transactionalId: uniqueName('test') });
  await writer.fence();
  expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
  await writer.close();
}

async function rows(): Promise<unknown[]> {
  return (await database.query(`SELECT id, owner, posted_cents, note FROM ${tableOf(options)} ORDER BY id`)).rows;
}

/** Applied to the end of the log, markers included. */
async function applied(): Promise<void> {
  await eventually(
    async () => {
      const [end] = await log.admin.offsets(topic);
      const offsets = await database.query<{ next: number }>(
        'SELECT next_offset::int AS next FROM headwater.offsets WHERE consumer = $1',
        [consumerOf(options)],
      );
      expect(end!.lastStable).toBe(end!.high);
      expect(offsets.rows).toEqual([{ next: end!.high }]);
    },
    { timeoutMs: 40_000 },
  );
}

async function parked(): Promise<unknown[]> {
  const found = await database.query(
    `SELECT convert_from(record_key, 'UTF8') AS key, log_offset::int AS at, code, reason
     FROM headwater.parked WHERE consumer = $1 ORDER BY log_offset`,
    [consumerOf(options)],
  );
  return found.rows;
}

describe('projection', () => {
  it('S01 replaces the whole row: no column of the earlier value survives', async () => {
    run();
    await produce(account('a', '1', { note: 'first' }));
    await applied();
    expect(await rows()).toEqual([{ id: 'a', owner: 'owner of a', posted_cents: '1', note: 'first' }]);
    await produce(account('a', '9007199254740993'));
    await applied();
    expect(await rows()).toEqual([{ id: 'a', owner: 'owner of a', posted_cents: '9007199254740993', note: null }]);
  });

  it('S02 S03 deletes the row of a tombstone, and inserts it again with new values only', async () => {
    run();
    await produce(account('a', '1', { note: 'first' }), account('b', '2'));
    await applied();
    await produce(change('a', null));
    await applied();
    expect(await rows()).toEqual([{ id: 'b', owner: 'owner of b', posted_cents: '2', note: null }]);
    await produce(account('a', '3'));
    await applied();
    expect(await rows()).toEqual([
      { id: 'a', owner: 'owner of a', posted_cents: '3', note: null },
      { id: 'b', owner: 'owner of b', posted_cents: '2', note: null },
    ]);
  });

  it('S04 takes a tombstone of an absent key without an error, and moves on', async () => {
    run();
    await produce(change('a', null));
    await applied();
    expect(await rows()).toEqual([]);
    expect([await parked(), warnings]).toEqual([[], []]);
  });

  it('S05 parks a record without a key with reason and offset, and handles the next', async () => {
    // A compacted topic refuses it by itself; one that somebody made otherwise does not.
    topic = uniqueName('accounts');
    type = projectionOn(topic);
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
    run();
    await produce(account('a', '1'), change(null, { id: 'x', owner: 'x', posted_cents: '1' }), account('b', '2'));
    await applied();
    expect(await rows()).toMatchObject([{ id: 'a' }, { id: 'b' }]);
    expect(await parked()).toEqual([
      { key: null, at: 1, code: 'CONTRACT_VIOLATED', reason: expect.stringContaining('the record has no key') },
    ]);
    expect(warnings).toEqual([]);
  });

  it('S28 keeps the last value of each key when 1,000 records of 10 keys come at once, deletes among them', async () => {
    const all = Array.from({ length: 1_000 }, (_, i) =>
      i % 7 === 0 ? change(`k${i % 10}`, null) : account(`k${i % 10}`, String(i)),
    );
    await produce(...all);
    run();
    await applied();
    const last = Array.from({ length: 10 }, (_, k) => 990 + k).filter((i) => i % 7 !== 0);
    expect(await rows()).toEqual(
      last.map((i) => ({ id: `k${i % 10}`, owner: `owner of k${i % 10}`, posted_cents: String(i), note: null })),
    );
    expect(warnings).toEqual([]);
  });

  it('S36 changes no row when the offsets of the group are set back: the offset rows decide', async () => {
    await produce(account('a', '1'), account('b', '2'), change('b', null));
    const first = run();
    await applied();
    await first.stop();
    const groupId = `headwater.${consumerOf(options)}`;
    const writer = log.writer({ transactionalId: uniqueName('rewind') });
    await writer.fence();
    const rewound = await writer.transact([account('c', '3')], {
      membership: { groupId, memberId: '', generation: -1 },
      offsets: [{ topic, partition: 0, next: 0 }],
    });
    expect(rewound).toMatchObject({ outcome: 'committed' });
    await writer.close();
    const version = async () =>
      (await database.query(`SELECT xmin::text, ctid::text FROM ${tableOf(options)} WHERE id = 'a'`)).rows;
    const before = await version();
    run();
    await applied();
    expect(await rows()).toMatchObject([{ id: 'a' }, { id: 'c' }]);
    expect(await version()).toEqual(before);
    expect(warnings).toEqual([]);
  });

  it('G49 parks what breaks the contract and every later record of its key, in order, also behind a restart', async () => {
    const first = run();
    await produce(
      account('a', '1'),
      change('a', { id: 'a', owner: 7, posted_cents: 'many' }),
      change('bytes', '\u0000\u0001'),
      account('a', '2'),
      account('b', '3'),
    );
    await applied();
    await first.stop();
    run();
    await produce(account('a', '4'), change('a', null), account('b', '5'));
    await applied();
    expect(await rows()).toMatchObject([
      { id: 'a', posted_cents: '1' },
      { id: 'b', posted_cents: '5' },
    ]);
    expect(await parked()).toMatchObject([
      { key: 'a', at: 1, code: 'CONTRACT_VIOLATED', reason: expect.stringContaining('posted') },
      { key: 'bytes', at: 2, code: 'CONTRACT_VIOLATED', reason: expect.stringContaining('not JSON') },
      { key: 'a', at: 3, code: 'KEY_PARKED' },
      { key: 'a', code: 'KEY_PARKED' },
      { key: 'a', code: 'KEY_PARKED' },
    ]);
    expect(warnings).toEqual([]);
  });

  it('parks a record whose data Postgres refuses, and writes what came before and beside it', async () => {
    run();
    await produce(account('a', '1'), account('a', '2', { note: 'nul \u0000' }), account('b', '3'));
    await applied();
    await produce(account('a', '4'));
    await applied();
    expect(await rows()).toMatchObject([
      { id: 'a', posted_cents: '1' },
      { id: 'b', posted_cents: '3' },
    ]);
    expect(await parked()).toMatchObject([
      { key: 'a', at: 1, code: '22P05' },
      { key: 'a', code: 'KEY_PARKED' },
    ]);
  });
});
