import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { kafkaLog } from '@headwater/kafka';
import { eventually, testDatabase, uniqueName } from '@headwater/testing';
import { ContractError } from '../errors/headwater.error.js';
import type { Log, LogGroup } from '../log/log.js';
import { produce, textRecord } from '../log/log.testing.js';
import { Database, type Sql } from '../postgres/database.js';
import { ensureSchema } from '../postgres/schema.js';
import type { ApplyDefinition } from './apply-definition.js';
import { ApplyRunner } from './apply-runner.js';
import { everybodysOwn, meeting } from './claimants.testing.js';
import { claim, move } from './offset-rows.js';

interface Amount {
  readonly key: string;
  readonly n: number;
}

let closing: (() => Promise<void>)[];
let log: Log;
let url: string;
let database: Database;
let topic: string;
let consumer: string;
let warnings: string[];

beforeEach(async () => {
  closing = [];
  warnings = [];
  const test = await testDatabase(process.env['DATABASE_URL']!);
  url = test.url;
  closing.push(() => test.drop());
  log = kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') });
  closing.push(() => log.close());
  database = openDatabase();
  topic = uniqueName('amounts');
  consumer = uniqueName('consumer');
  await ensureSchema(database, ['CREATE TABLE totals (key text PRIMARY KEY, n int NOT NULL)']);
  await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
});

function openDatabase(of: Database = new Database(url)): Database {
  closing.push(() => of.close());
  return of;
}

/** Additive on purpose: a record applied twice shows. */
async function add(amounts: readonly Amount[], sql: Sql): Promise<void> {
  for (const { key, n } of amounts) {
    await sql.query('INSERT INTO totals VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET n = totals.n + EXCLUDED.n', [
      key,
      n,
    ]);
  }
}

function definition(write: ApplyDefinition<Amount>['write'] = add): ApplyDefinition<Amount> {
  return {
    consumer,
    topics: [topic],
    prepare: (record) => {
      const n = Number(record.value!.toString());
      if (Number.isNaN(n)) throw new ContractError('amount', [`${record.value!.toString()} is no number`]);
      return { key: record.key!.toString(), n };
    },
    write,
  };
}

function run(of = definition(), on: { database?: Database; log?: Log } = {}): ApplyRunner<Amount> {
  const logger = { log: () => undefined, error: () => undefined, warn: (text: string) => void warnings.push(text) };
  const runner = new ApplyRunner(of, { log, database, logger, ...on });
  closing.push(() => runner.stop());
  return runner;
}

const amounts = (...all: readonly (readonly [string, number])[]) =>
  produce(
    log,
    all.map(([key, n]) => textRecord(topic, key, String(n))),
  );

async function totals(): Promise<Record<string, number>> {
  const { rows } = await database.query<Amount>('SELECT key, n FROM totals ORDER BY key');
  return Object.fromEntries(rows.map(({ key, n }) => [key, n]));
}

async function nextOffset(): Promise<number | undefined> {
  const { rows } = await database.query<{ next: number }>(
    'SELECT next_offset::int AS next FROM headwater.offsets WHERE consumer = $1',
    [consumer],
  );
  return rows[0]?.next;
}

const holds = (expected: Record<string, number>) =>
  eventually(async () => expect(await totals()).toEqual(expected), { timeoutMs: 40_000 });

/** A database of a process that can be stopped or lost around its transactions. */
class FaultyDatabase extends Database {
  before: () => Promise<void> = async () => undefined;
  after: () => Promise<void> = async () => undefined;

  override async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    await this.before();
    const result = await super.transaction(work);
    await this.after();
    return result;
  }
}

describe('ApplyRunner', () => {
  it('S24 leaves rows and offset unchanged when its session dies before the commit, then applies once', async () => {
    await amounts(['a', 1]);
    let hangs = false;
    run(
      definition(async (all, sql) => {
        await add(all, sql);
        if (hangs) await sql.query('SELECT pg_advisory_xact_lock(1)');
      }),
    );
    await holds({ a: 1 });
    const before = await nextOffset();
    hangs = true;
    await database.transaction(async (holder) => {
      await holder.query('SELECT pg_advisory_xact_lock(1)');
      await amounts(['a', 10], ['b', 20]);
      const pid = await eventually(async () => {
        const { rows } = await database.query<{ pid: number }>(`SELECT pid FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'`);
        expect(rows).toHaveLength(1);
        return rows[0]!.pid;
      });
      expect(await totals()).toEqual({ a: 1 });
      hangs = false;
      await database.query('SELECT pg_terminate_backend($1)', [pid]);
      // The lock is held until the repetition has passed: nothing was let go, the session died.
      await holds({ a: 11, b: 20 });
    });
    expect(warnings).toHaveLength(1);
    expect(await nextOffset()).toBeGreaterThan(before!);
    await amounts(['b', 5]);
    await holds({ a: 11, b: 25 });
  });

  it('S24 leaves rows and offset unchanged when the handler fails at the end of its write', async () => {
    await amounts(['a', 1], ['b', 1]);
    let failures = 2;
    const found: unknown[] = [];
    run(
      definition(async (all, sql) => {
        found.push([await totals(), await nextOffset()]);
        await add(all, sql);
        if (failures-- > 0) throw new Error('not yet');
      }),
    );
    await holds({ a: 1, b: 1 });
    expect(found).toEqual([
      [{}, 0],
      [{}, 0],
      [{}, 0],
    ]);
  });

  it('S25 S36 applies nothing twice after a restart behind the SQL commit, and with group offsets at the start', async () => {
    const lost = new FaultyDatabase(url);
    openDatabase(lost);
    let losses = 1;
    lost.after = async () => {
      if (losses-- > 0) throw new Error('the process ends here');
    };
    await amounts(['a', 1], ['b', 2]);
    const first = run(definition(), { database: lost });
    await holds({ a: 1, b: 2 });
    await eventually(() => expect(warnings.join()).toContain('the process ends here'));
    await amounts(['a', 10]);
    await holds({ a: 11, b: 2 });
    await first.stop();
    const groupId = `headwater.${consumer}`;
    const writer = log.writer({ transactionalId: uniqueName('rewind') });
    await writer.fence();
    const rewound = await writer.transact([textRecord(topic, 'b', '100')], {
      membership: { groupId, memberId: '', generation: -1 },
      offsets: [{ topic, partition: 0, next: 0 }],
    });
    expect(rewound).toMatchObject({ outcome: 'committed' });
    expect(await log.admin.committedOffsets(groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: 0 },
    ]);
    warnings.length = 0;
    run();
    await holds({ a: 11, b: 102 });
    expect(warnings).toEqual([]);
  });

  it('S26 rolls back a zombie whose partition was taken over, and leaves the rows as the new owner left them', async () => {
    const stopped = new FaultyDatabase(url);
    openDatabase(stopped);
    await amounts(['a', 1]);
    const zombie = run(definition(), { database: stopped });
    await holds({ a: 1 });
    let resume: () => void = () => undefined;
    let reached = false;
    stopped.before = () => {
      reached = true;
      return new Promise((resolve) => (resume = resolve));
    };
    await amounts(['a', 10]);
    await eventually(() => expect(reached).toBe(true));
    // The new owner, from the claim to the end of the log.
    const [end] = await log.admin.offsets(topic);
    await database.transaction(async (sql) => {
      const held = await claim(sql, consumer, { topic, partition: 0 }, 0);
      await move(sql, consumer, held, end!.high);
      await add([{ key: 'a', n: 10 }], sql);
    });
    stopped.before = async () => undefined;
    resume();
    await eventually(() => expect(warnings.join()).toContain('APPLY_ZOMBIE'));
    expect(await totals()).toEqual({ a: 11 });
    // It comes back as a claimant of its own, from where the new owner stands.
    await amounts(['a', 100]);
    await holds({ a: 111 });
    expect(zombie.health().status).toBe('up');
  });

  it('S27 applies once while two instances both believe that they own the partition', async () => {
    /** A group of its own gives each instance every partition. */
    const alone = (): Log => ({ ...log, group: (of) => log.group({ ...of, groupId: uniqueName('group') }) });
    const both = [run(definition(), { log: alone() }), run(definition(), { log: alone() })];
    await eventually(() => expect(both.map((runner) => runner.health().status)).toEqual(['up', 'up']));
    for (let round = 0; round < 25; round++) await amounts(['a', 1], [`k${round % 5}`, 1]);
    await holds({ a: 25, k0: 5, k1: 5, k2: 5, k3: 5, k4: 5 });
    expect(warnings.join()).toContain('APPLY_ZOMBIE');
  });

  it('S27 lets one of two claimants win that start at the same instant, in each of 100 rounds', async () => {
    const databases = [new FaultyDatabase(url), new FaultyDatabase(url)];
    for (const of of databases) openDatabase(of);
    for (let round = 1; round <= 100; round++) {
      await amounts(['a', 1]);
      // Both have claimed, and both have read the record.
      const before = meeting(databases.length);
      for (const of of databases) of.before = before;
      warnings.length = 0;
      const both = databases.map((of) =>
        run(definition(), {
          database: of,
          log: { ...log, group: () => everybodysOwn({ topic, partition: 0 }) as LogGroup },
        }),
      );
      await holds({ a: round });
      await eventually(() => expect(warnings.join()).toContain('APPLY_ZOMBIE'), { intervalMs: 5 });
      await Promise.all(both.map((runner) => runner.stop()));
      expect(await totals()).toEqual({ a: round });
    }
  });

  it('S30 repeats the whole batch after a deadlock, with rows as from one pass', async () => {
    await amounts(['a', 1], ['b', 1]);
    run();
    await holds({ a: 1, b: 1 });
    const other = openDatabase();
    await other.transaction(async (sql) => {
      // The runner is the one that notices the deadlock, and so its victim.
      await sql.query(`SET LOCAL deadlock_timeout = '30s'`);
      await add([{ key: 'b', n: 1_000 }], sql);
      await amounts(['a', 10], ['b', 10]);
      await eventually(async () => {
        const { rows } = await database.query(`SELECT 1 FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'`);
        expect(rows).toHaveLength(1);
      });
      await add([{ key: 'a', n: 1_000 }], sql);
    });
    await holds({ a: 1_011, b: 1_011 });
    expect(warnings.join()).toContain('deadlock detected');
  });

  it('S30 repeats the whole batch after serialization failures', async () => {
    let failures = 3;
    run(
      definition(async (all, sql) => {
        await add(all, sql);
        if (failures-- > 0) await sql.query(`DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$`);
      }),
    );
    await amounts(['a', 1], ['a', 2], ['b', 3]);
    await holds({ a: 3, b: 3 });
    expect(warnings).toHaveLength(3);
  });

  it('parks a record and a reason that hold bytes Postgres cannot keep as text, and goes on', async () => {
    await produce(log, [
      textRecord(topic, 'a', '\u0000broken', [['trace', Buffer.from([0, 0xff])]]),
      textRecord(topic, 'a', '1'),
      textRecord(topic, 'b', '1'),
    ]);
    run();
    await holds({ b: 1 });
    const { rows } = await database.query<{ value: Buffer; code: string }>(
      'SELECT record_value AS value, code FROM headwater.parked WHERE consumer = $1 ORDER BY log_offset',
      [consumer],
    );
    expect(rows.map(({ value, code }) => [value.toString(), code])).toEqual([
      ['\u0000broken', 'CONTRACT_VIOLATED'],
      ['1', 'KEY_PARKED'],
    ]);
  });
});
