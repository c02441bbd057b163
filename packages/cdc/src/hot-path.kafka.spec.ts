import { setInterval } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Log } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { MeasuredCapture } from './measured-capture.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;

let source: Source;
let kafka: FaultProxy;
let behindProxy: Log;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
  behindProxy = kafkaLog({ brokers, connect: () => ({ host: '127.0.0.1', port: kafka.port }) });
});
afterEach(async () => {
  kafka.decide = () => undefined;
  await kafka.release();
  await source.close();
  await behindProxy.close();
  await kafka.close();
});

/** From now on no record reaches the log, until the rule is taken away. */
function holdProduce(): void {
  kafka.decide = ({ apiKey }) => (apiKey === PRODUCE ? { at: 'request', act: 'hold' } : undefined);
}

async function letProduce(): Promise<void> {
  kafka.decide = () => undefined;
  await kafka.release();
}

async function confirmed(): Promise<bigint> {
  return parseLsn((await source.slotFacts())!.confirmed);
}

/** How long ago, by the server's clock, it last heard from capture, in milliseconds. */
async function replyAgeMs(): Promise<number> {
  const { rows } = await source.sql.query<{ ms: number }>(
    `SELECT (extract(epoch FROM clock_timestamp() - reply_time) * 1000)::float8 AS ms
       FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = $1`,
    [source.slot],
  );
  return rows[0]!.ms;
}

describe('hot path', () => {
  it('C28 stops at a record that its topic does not take, naming table, key, bytes and limit, and not at many that fit', async () => {
    await source.topics(['a'], 1, { 'max.message.bytes': '20000' });
    const capture = await source.started(['a']);
    // Together far above the limit, each far below.
    await source.sql.query(`INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 300) i`);
    await source.seenCount('a', 300);
    const before = await eventually(async () => {
      const at = await confirmed();
      expect(at).toBe((await source.lastPosition()).endLsn);
      return at;
    });
    await source.sql.query(`INSERT INTO a VALUES (1000, 'small'), (1001, repeat('x', 50000)), (1002, 'small')`);
    const refusal = await capture.finished.then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refusal).toMatchObject({
      code: 'CDC_RECORD_REFUSED',
      facts: { table: 'public.a', key: '1001', limit: 20_000, bytes: expect.any(Number) },
      message: expect.stringMatching(/table public\.a .*20000.*"1001" of 50\d\d\d bytes/s),
    });
    expect(await source.seen('a')).toHaveLength(300);
    expect((await confirmed()) <= before + 0n || (await confirmed()) === (await source.lastPosition()).endLsn).toBe(
      true,
    );
    // Once the topic takes it, nothing is missing.
    await source.log.admin.applyTopics([
      { topic: source.topic('a'), partitions: 1, cleanupPolicy: 'compact', config: { 'max.message.bytes': '100000' } },
    ]);
    await source.started(['a']);
    const seen = await source.seenCount('a', 303);
    expect(seen.slice(300).map(({ key }) => key)).toEqual(['1000', '1001', '1002']);
  });

  it('C83 acknowledges the raw end LSN of the position, to the byte', async () => {
    await source.topics(['a']);
    await source.started(['a']);
    for (let id = 1; id <= 20; id++) {
      const before = await confirmed();
      await source.sql.query('INSERT INTO a VALUES ($1)', [id]);
      await source.seenCount('a', id);
      const at = await eventually(async () => {
        const now = await confirmed();
        if (now === before) throw new Error('not acknowledged');
        return now;
      });
      expect((await source.positions()).map(({ endLsn }) => endLsn)).toContain(at);
    }
  });

  it('C84 C87 keeps the slot below a batch that is held, and answers the server within a second meanwhile', async () => {
    await source.sql.query(
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET wal_sender_timeout = ''4s''', current_database()); END $$`,
    );
    await source.topics(['a']);
    const capture = await source.started(['a'], { log: behindProxy });
    await source.sql.query(`INSERT INTO a VALUES (1, 'published')`);
    await source.seenCount('a', 1);
    holdProduce();
    await source.sql.query(`INSERT INTO a VALUES (2, 'held')`);
    const { endLsn } = await source.lastPosition();
    const heldAt = await source.walLsn();
    const ages: number[] = [];
    // Longer than the time after which the library by itself would acknowledge what it has received (10 s).
    for await (const _ of setInterval(250)) {
      ages.push(await replyAgeMs());
      const at = await confirmed();
      expect(at < heldAt && at <= (await source.lastPosition()).endLsn).toBe(true);
      if (ages.length === 48) break;
    }
    expect(Math.max(...ages)).toBeLessThanOrEqual(1_000);
    expect((await source.lastPosition()).endLsn).toBe(endLsn);
    expect([capture.status().reconnects, await source.seen('a')]).toMatchObject([0, [{ key: '1' }]]);
    await letProduce();
    await source.seenCount('a', 2);
    await eventually(async () => expect((await confirmed()) >= heldAt).toBe(true));
  });

  it('C86 acknowledges no keepalive while a transaction is open, and its tail is seen after a cut', async () => {
    await source.sql.query('CREATE TABLE unpublished (b text)');
    await source.topics(['a']);
    const capture = await source.started(['a'], { log: behindProxy, maxBatchRows: 100, maxQueuedBytes: 50_000 });
    await source.sql.query(`INSERT INTO a VALUES (0, 'published')`);
    await source.seenCount('a', 1);
    const begun = await source.walLsn();
    holdProduce();
    await source.sql.query(`INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i`);
    const walsender = (await source.slotFacts())!.pid;
    for (let round = 0; round < 20; round++) {
      await source.sql.query(`INSERT INTO unpublished SELECT repeat('y', 1000) FROM generate_series(1, 200)`);
      await eventually(async () => expect(await replyAgeMs()).toBeLessThan(1_000));
      expect(await confirmed()).toBeLessThanOrEqual(begun);
    }
    await source.sql.query('SELECT pg_terminate_backend($1)', [walsender]);
    await letProduce();
    const seen = await source.seenCount('a', 5_001, 30_000);
    expect(seen.map(({ key }) => Number(key))).toEqual(Array.from({ length: 5_001 }, (_, i) => i));
    expect(seen.slice(1).map(({ seq }) => seq)).toEqual(Array.from({ length: 5_000 }, (_, i) => i));
    expect(capture.status().reconnects).toBe(1);
  });

  it('C88 reconnects after the event loop stood still for longer than wal_sender_timeout, and names the stall', async () => {
    await source.sql.query(
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET wal_sender_timeout = ''4s''', current_database()); END $$`,
    );
    await source.topics(['a']);
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'before')`);
    await source.seenCount('a', 1);
    const other = await source.client();
    await other.query(`INSERT INTO a VALUES (2, 'unread')`);
    for (const end = performance.now() + 6_000; performance.now() < end;);
    await eventually(() => expect(source.messages.join('\n')).toMatch(/stood still for [3-9]\d\d\d ms/));
    await eventually(() => expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 1 }));
    await source.sql.query(`INSERT INTO a VALUES (3, 'after')`);
    const seen = await source.seenCount('a', 3);
    expect(seen.map(({ key }) => key)).toEqual(['1', '2', '3']);
  });
});

describe('large transactions', () => {
  let measured: MeasuredCapture | undefined;
  afterEach(() => measured?.stop());

  it('C09 C93 publishes 50,000 rows without holding the event loop, and a million once, in order, in little memory', async () => {
    await source.topics(['a']);
    measured = await MeasuredCapture.start(source.processOptions(['a'], { maxBatchRows: 1_000_000 }));
    await source.sql.query(`INSERT INTO a SELECT i, 'small' FROM generate_series(1, 50000) i`);
    expect((await measured.published(50_000)).heldMs).toBeLessThan(200);
    await source.sql.query(`INSERT INTO a SELECT i, 'of a million' FROM generate_series(50001, 1050000) i`);
    expect((await measured.published(1_050_000)).peakRssMb).toBeLessThan(300);
    const wanted = (index: number) => ({ key: index + 1, seq: index < 50_000 ? index : index - 50_000 });
    expect(await source.compared('a', wanted)).toEqual({ records: 1_050_000, wrong: 0 });
  });
});
