import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { partitionOf } from '@headwater/core';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import type { CaptureProcess, ProcessOptions } from './capture-process.testing.js';
import { parseLsn } from './lsn.js';
import { postgresProxy } from './postgres-proxy.testing.js';
import type { PostgresProxy } from './postgres-proxy.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
let kafka: FaultProxy;
let child: CaptureProcess;
let postgres: PostgresProxy | undefined;

beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a'], 2);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  await source.close();
  await kafka.close();
  await postgres?.close();
  postgres = undefined;
});

async function run(connectionString = source.url, tables = ['a'], more: Partial<ProcessOptions> = {}): Promise<void> {
  child = await source.process(tables, { connectionString, kafkaPort: kafka.port, ...more });
}

const kill = () => child.kill();

async function everyRowOnce(ids: readonly number[]): Promise<void> {
  const seen = await source.seenCount('a', ids.length, 30_000);
  const once = seen.map(({ key, tx, seq }) => `${key} ${tx} ${seq}`).toSorted();
  expect(seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(ids);
  expect(new Set(once).size).toBe(ids.length);
}

describe('kill -9', () => {
  it('C11 before anything is produced: every row once, and the slot never passed it', async () => {
    await run();
    kafka.decide = ({ apiKey }) => (apiKey === PRODUCE ? { at: 'request', act: 'drop' } : undefined);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x')`);
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    await kill();
    expect(await source.seen('a')).toEqual([]);
    const confirmed = parseLsn((await source.slotFacts())!.confirmed);
    kafka.decide = () => undefined;
    await run();
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await everyRowOnce([1, 2, 3]);
    // A log LSN is that of the commit record: the slot may have reached it, but not passed it.
    const first = (await source.seen('a')).find(({ key }) => key === '1')!;
    expect(confirmed <= parseLsn(first.lsn!)).toBe(true);
  });

  it('C12 after Produce and before the commit: the first attempt is never seen', async () => {
    await run();
    kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'drop' } : undefined);
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 100) g`);
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    await kill();
    expect(await source.seen('a')).toEqual([]);
    kafka.decide = () => undefined;
    await run();
    await source.sql.query(`INSERT INTO a VALUES (101, 'x')`);
    await everyRowOnce(Array.from({ length: 101 }, (_, i) => i + 1));
  });

  it('C13 C30 after the commit and before the ack: what comes again is skipped, the next one is seen', async () => {
    const count = 1_000;
    postgres = await postgresProxy(source.url);
    await run(postgres.url);
    postgres.dropStatus = true;
    const before = await eventually(async () => {
      const { confirmed } = (await source.slotFacts())!;
      // What was let through may still be on its way.
      expect(parseLsn(confirmed)).toBe(postgres!.acknowledged);
      return confirmed;
    });
    for (let id = 1; id <= count; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    await source.seenCount('a', count);
    await kill();
    await source.slotFree();
    expect((await source.slotFacts())!.confirmed).toBe(before);
    expect((await source.lastPosition()).endLsn > parseLsn(before)).toBe(true);
    const first = postgres.passed.slice();
    expect(first).toHaveLength(count);
    postgres.dropStatus = false;
    await run(postgres.url);
    await source.sql.query(`INSERT INTO a VALUES (${count + 1}, 'next')`);
    await everyRowOnce(Array.from({ length: count + 1 }, (_, i) => i + 1));
    expect(postgres.passed.slice(count, 2 * count)).toEqual(first);
  });

  it('C03 after acknowledging the first of two transactions whose commit records are adjacent', async () => {
    postgres = await postgresProxy(source.url);
    await run(postgres.url);
    const [one, two] = [await source.client(), await source.client()];
    let id = 0;
    let [end, next] = [0n, 1n];
    for (let round = 0; round < 100 && end !== next; round++) {
      postgres.holdBehindCommit = false;
      await source.seenCount('a', id);
      postgres.holdBehindCommit = true;
      const before = postgres.passed.length;
      for (const session of [one, two]) await session.query(`BEGIN; INSERT INTO a VALUES (${++id}, 'x')`);
      await Promise.all([one.query('COMMIT'), two.query('COMMIT')]);
      [end, next] = await eventually(() => {
        const [passed, held] = [postgres!.passed[before], postgres!.heldBegins[0]];
        if (passed === undefined || held === undefined) throw new Error('not yet both');
        return [passed.endLsn, held];
      });
    }
    expect(next).toBe(end);
    await eventually(async () => expect(parseLsn((await source.slotFacts())!.confirmed)).toBe(end));
    await kill();
    expect(await source.seen('a')).toHaveLength(id - 1);
    await source.slotFree();
    expect(parseLsn((await source.slotFacts())!.confirmed)).toBe(end);
    await run();
    await everyRowOnce(Array.from({ length: id }, (_, i) => i + 1));
    const lsns = (await source.seen('a')).map(({ lsn }) => parseLsn(lsn!));
    expect(lsns).toContain(next);
  });

  it('C06 before the commit shows nothing, and what is committed is whole on every partition at any time', async () => {
    const tables = ['a', 'c', 'd'];
    await source.sql.query('CREATE TABLE c (id int PRIMARY KEY, b text); CREATE TABLE d (id int PRIMARY KEY, b text)');
    await source.topics(['c', 'd'], 2);
    // Small parts: one source transaction takes several requests.
    const parts = { maxBatchRows: 150 };
    await run(source.url, tables, parts);
    const write = (version: number) =>
      source.sql.query(
        `BEGIN; ${tables.map((t, i) => `INSERT INTO ${t} SELECT g, '${version}' FROM generate_series(1, ${[500, 300, 200][i]}) g ON CONFLICT (id) DO UPDATE SET b = EXCLUDED.b;`).join('')} COMMIT`,
      );
    // Not the end of an idle position, which is a small transaction of its own.
    let rows = false;
    kafka.decide = ({ apiKey, bytes }) => {
      rows ||= apiKey === PRODUCE && bytes > 5_000;
      return rows && apiKey === END_TXN ? { at: 'request', act: 'drop' } : undefined;
    };
    await write(1);
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    const produced = (await Promise.all(tables.map((t) => source.log.admin.offsets(source.topic(t))))).flat();
    for (const { high, lastStable } of produced) expect([high > 0, lastStable]).toEqual([true, 0]);
    for (const table of tables) expect(await source.seen(table)).toEqual([]);
    await kill();
    kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'delay', ms: 100 } : undefined);

    const wanted = new Map(
      tables.flatMap((table, i) =>
        [0, 1].map((partition) => {
          const ids = Array.from({ length: [500, 300, 200][i]! }, (_, id) => String(id + 1));
          return [`${table}-${partition}`, ids.filter((key) => partitionOf(Buffer.from(key), 2) === partition).length];
        }),
      ),
    );
    const versions = 6;
    const partial: string[] = [];
    let [samples, total] = [0, 0];
    const sample = async (): Promise<void> => {
      samples += 1;
      total = 0;
      for (const table of tables) {
        const perTransaction = new Map<string, number>();
        for (const { tx, record } of await source.seen(table)) {
          const name = `${table}-${record.partition} ${tx}`;
          perTransaction.set(name, (perTransaction.get(name) ?? 0) + 1);
          total += 1;
        }
        for (const [name, count] of perTransaction)
          if (count !== wanted.get(name.split(' ')[0]!)) partial.push(`${name}: ${count}`);
      }
    };
    const writing = run(source.url, tables, parts).then(async () => {
      for (let version = 2; version <= versions; version++) await write(version);
    });
    await eventually(
      async () => {
        await sample();
        if (total < versions * 1_000) throw new Error(`${total} records`);
      },
      { timeoutMs: 30_000, intervalMs: 1 },
    );
    await writing;
    expect(partial).toEqual([]);
    expect(samples).toBeGreaterThan(10);
    expect(total).toBe(versions * 1_000);
  });

  it('C16 goes on in the same process when the reply to a commit is lost, or the request', async () => {
    await run();
    for (const at of ['response', 'request'] as const) {
      let dropped = false;
      kafka.decide = ({ apiKey }) => {
        if (apiKey !== END_TXN || dropped) return undefined;
        dropped = true;
        return { at, act: 'close' };
      };
      const id = at === 'response' ? 1 : 2;
      await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
      await everyRowOnce(id === 1 ? [1] : [1, 2]);
    }
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await everyRowOnce([1, 2, 3]);
  });
});
