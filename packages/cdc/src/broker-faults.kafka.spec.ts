import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { systemClock } from '@headwater/core';
import { eventually, kafkaCluster } from '@headwater/testing';
import type { KafkaCluster } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;
const PARTITIONS = 3;
/** How long the brokers stay away; 600 is what C23 names. */
const OUTAGE_SECONDS = Number(process.env['OUTAGE_SECONDS'] ?? 15);
/** Ten times in an outage, as the default is in ten minutes. */
const TRANSACTION_TIMEOUT_MS = OUTAGE_SECONDS * 100;
/** A second of load is to cost the test no more memory in ten minutes than in fifteen seconds. */
const PAUSE_MS = OUTAGE_SECONDS > 60 ? 5 : 0;

let cluster: KafkaCluster;
let source: Source;
beforeAll(async () => {
  cluster = await kafkaCluster({ brokers: 3, advertise: 'proxy' });
});
afterAll(() => cluster?.stop());
beforeEach(async () => {
  source = await Source.open(undefined, cluster.brokers);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a'], PARTITIONS);
});
afterEach(async () => {
  cluster.proxy.decide = () => undefined;
  await healed();
  await source.close();
});

const healed = () => cluster.heal([source.topic('a'), source.positionTopic]);

/** Lines that do not compress. */
const INSERT = `INSERT INTO a SELECT $1::int, string_agg(md5($1::int || '-' || g), '') FROM generate_series(1, $2::int) g`;

/** Inserts rows, one transaction each, until told to stop; resolves with how many. */
function writing(lines = 1, pauseMs = 0): { stop: () => Promise<number>; readonly written: () => number } {
  let [count, stopped] = [0, false];
  const done = (async () => {
    while (!stopped) {
      await source.sql.query(INSERT, [++count, lines]);
      if (pauseMs > 0) await systemClock.wait(pauseMs);
    }
  })();
  return {
    written: () => count,
    async stop() {
      stopped = true;
      await done;
      return count;
    },
  };
}

/** Every row once, and in commit order on each partition. */
async function onceInOrder(count: number, timeoutMs = 60_000): Promise<void> {
  const seen = await source.seenCount('a', count, timeoutMs);
  expect(seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(
    Array.from({ length: count }, (_, i) => i + 1),
  );
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const keys = seen.filter(({ record }) => record.partition === partition).map(({ key }) => Number(key));
    expect(keys.length).toBeGreaterThan(0);
    expect(keys).toEqual(keys.toSorted((x, y) => x - y));
  }
}

/** Kills, once, the broker at which a request of this kind arrives; the request is lost with it, or its answer. */
function killAt(apiKey: number, at: 'request' | 'response'): { readonly struck: Promise<void> } {
  let armed = true;
  const struck = new Promise<void>((resolve) => {
    cluster.proxy.decide = (request) => {
      // Not those of an idle position.
      if (!armed || request.apiKey !== apiKey || (apiKey === PRODUCE && !request.frame.includes(source.topic('a'))))
        return undefined;
      armed = false;
      const kill = () => cluster.nodes[request.target]!.kill().then(resolve);
      return { at, act: 'close', onStrike: kill };
    };
  });
  return { struck };
}

describe('brokers under a capture', () => {
  it('C20 a broker dies with a Produce in hand and comes back: rows once, order kept', async () => {
    const capture = await source.started(['a']);
    const load = writing();
    for (const at of ['request', 'response'] as const) {
      await source.seenCount('a', load.written() + 20, 60_000);
      await killAt(PRODUCE, at).struck;
      const before = load.written();
      await source.seenCount('a', before + 20, 60_000);
      await healed();
    }
    await onceInOrder(await load.stop());
    expect(capture.status().state).toBe('streaming');
  });

  it('C21 leaders move under load: no record missing or doubled on any partition', async () => {
    await source.started(['a']);
    const load = writing();
    for (let round = 0; round < 2 * PARTITIONS; round++) {
      await source.seenCount('a', load.written() + 20, 60_000);
      const from = await cluster.leaderOf(source.topic('a'), round % PARTITIONS);
      expect(await cluster.moveLeader(source.topic('a'), round % PARTITIONS)).not.toBe(from);
    }
    await onceInOrder(await load.stop());
  });

  it.each(['request', 'response'] as const)(
    'C22 the transaction coordinator dies at the %s of a commit: rows once, on within 30 s',
    async (at) => {
      const capture = await source.started(['a']);
      const load = writing();
      await source.seenCount('a', 50, 60_000);
      await killAt(END_TXN, at).struck;
      const [died, before] = [performance.now(), load.written()];
      await source.seenCount('a', before + 20, 60_000);
      expect(performance.now() - died).toBeLessThan(30_000);
      await healed();
      await onceInOrder(await load.stop());
      expect(capture.status().state).toBe('streaming');
    },
  );

  it(
    `C23 keeps memory, walsender and slot while all brokers are away for ${OUTAGE_SECONDS} s under load, then all rows once`,
    async () => {
      const { rows } = await source.sql.query<{ name: string }>('SELECT current_database() AS name');
      await source.sql.query(`ALTER DATABASE "${rows[0]!.name}" SET wal_sender_timeout = '3s'`);
      const capture = await source.process(['a'], { transactionTimeoutMs: TRANSACTION_TIMEOUT_MS });
      const load = writing(128, PAUSE_MS);
      await source.seenCount('a', 50, 60_000);
      await Promise.all(cluster.nodes.map((node) => node.kill()));
      const facts = async () => {
        const found = await source.sql.query<{ pid: number; confirmed: string; now: number; behind: string }>(
          `SELECT r.pid, confirmed_flush_lsn::text AS confirmed, extract(epoch FROM clock_timestamp())::float AS now,
                (pg_current_wal_lsn() - confirmed_flush_lsn)::text AS behind
           FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE slot_name = $1`,
          [source.slot],
        );
        return { ...found.rows[0]!, rss: (await capture.status()).rssBytes };
      };
      // What was committed in the log while the brokers died may still be acknowledged.
      const committed = (await facts()).now;
      const samples: Awaited<ReturnType<typeof facts>>[] = [];
      await eventually(
        async () => {
          const sample = await facts();
          if (sample.now > committed + 1) samples.push(sample);
          expect(sample.now).toBeGreaterThan(committed + OUTAGE_SECONDS);
          expect(Number(sample.behind)).toBeGreaterThan(25_000_000);
          // Its transaction was given up, and the brokers were asked again in vain.
          expect(capture.errors.length).toBeGreaterThan(2);
        },
        { timeoutMs: (OUTAGE_SECONDS + 60) * 1_000, intervalMs: 100 },
      );
      expect(samples.filter(({ pid }) => pid !== samples[0]!.pid)).toEqual([]);
      expect(samples[0]!.pid).not.toBeNull();
      expect(new Set(samples.map(({ confirmed }) => confirmed)).size).toBe(1);
      expect(Math.max(...samples.map(({ rss }) => rss))).toBeLessThan(300e6);
      expect((await capture.status()).state).toBe('reconnecting');
      await Promise.all(cluster.nodes.map((node) => node.start()));
      const backAt = performance.now();
      const count = await load.stop();
      const end = await source.walLsn();
      const caughtUp = async () => expect((await source.lastPosition()).endLsn >= end).toBe(true);
      await eventually(caughtUp, { timeoutMs: 300_000, intervalMs: 500 });
      expect(performance.now() - backAt).toBeLessThan(300_000);
      await onceInOrder(count);
      await healed();
      expect(parseLsn((await source.slotFacts())!.confirmed) >= parseLsn(samples[0]!.confirmed)).toBe(true);
      expect((await capture.status()).state).toBe('streaming');
    },
    (OUTAGE_SECONDS + 400) * 1_000,
  );
});
