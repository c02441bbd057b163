import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Log } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { devServices, eventually, faultProxy, postgresFaultProxy } from '@headwater/testing';
import type { DevServices } from '@headwater/testing';
import { formatLsn } from './lsn.js';
import { postgresProxy } from './postgres-proxy.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;

// Named so that npm test sweeps it after a kill.
const directory = resolve('.headwater', `test-${process.pid}`);
let own: DevServices;
let source: Source;
let closing: (() => Promise<unknown>)[];

beforeAll(async () => {
  own = await devServices({
    directory,
    // Postgres of its own, Kafka of the run.
    mode: 'auto',
    fresh: true,
    env: { ...process.env, DATABASE_URL: '' },
    postgresSettings: { max_prepared_transactions: '10' },
  });
});
afterAll(async () => {
  await own.stop();
  rmSync(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  closing = [];
  source = await Source.open(own.databaseUrl);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
});
afterEach(async () => {
  await source.close();
  for (const close of closing) await close();
});

async function walSenderTimeout(setting: string): Promise<void> {
  const { rows } = await source.sql.query<{ name: string }>('SELECT current_database() AS name');
  await source.sql.query(`ALTER DATABASE "${rows[0]!.name}" SET wal_sender_timeout = '${setting}'`);
}

async function everyRowOnce(ids: readonly number[]): Promise<void> {
  const seen = await source.seenCount('a', ids.length, 30_000);
  expect(seen.map(({ key }) => Number(key))).toEqual(ids);
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

describe('a server that goes and comes', () => {
  it('C24 shuts down fast beside a capture under load; it reconnects at the start, rows once', async () => {
    const capture = await source.started(['a']);
    const writer = await source.client();
    const writing = (async () => {
      // Ends with the server.
      for (let id = 1; ; id++) await writer.query(`INSERT INTO a VALUES (${id}, 'x')`);
    })().catch(() => {});
    await source.seenCount('a', 50);
    const began = performance.now();
    await own.postgres.stop();
    expect(performance.now() - began).toBeLessThan(10_000);
    await writing;
    await own.postgres.start();
    const again = await source.client();
    await again.query(`INSERT INTO a VALUES (0, 'again')`);
    const { rows } = await again.query<{ id: number }>('SELECT id FROM a WHERE id > 0 ORDER BY id');
    await everyRowOnce([...rows.map(({ id }) => id), 0]);
    await source.foldEqualsTable(again);
    expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 1 });
  });
});

describe('a connection that is lost in silence', () => {
  it('C26 counts as lost when it is silent longer than the limit, while all our writes succeed', async () => {
    await walSenderTimeout('3s');
    let arm = false;
    let muted = 0;
    const proxy = await postgresFaultProxy(source.url, ({ from, type }) => {
      if (!arm || from !== 'server' || type !== 'd') return undefined;
      arm = false;
      muted += 1;
      return { act: 'mute' };
    });
    closing.push(() => proxy.close());
    const capture = await source.started(['a'], { connectionString: proxy.url, inboundTimeoutMs: 2_000 });
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    arm = true;
    for (const id of [2, 3, 4]) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    await everyRowOnce([1, 2, 3, 4]);
    expect(muted).toBe(1);
    expect(source.errors[0]).toMatchObject({ code: 'CDC_STREAM_LOST', message: expect.stringContaining('silent') });
    expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 1 });
  });

  it('C41 stays while publishing stalls five times as long as wal_sender_timeout; the slot waits, nothing comes again', async () => {
    await walSenderTimeout('2s');
    const [host, port] = brokers[0]!.split(':');
    const kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
    const log: Log = kafkaLog({ brokers, connect: () => ({ host: '127.0.0.1', port: kafka.port }) });
    const postgres = await postgresProxy(source.url);
    closing.push(
      () => log.close(),
      () => kafka.close(),
      () => postgres.close(),
    );
    const capture = await source.started(['a'], { log, connectionString: postgres.url });
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    // The acknowledgement of what is committed may be a second behind it.
    await eventually(async () =>
      expect((await source.slotFacts())!.confirmed).toBe(formatLsn((await source.lastPosition()).endLsn)),
    );
    kafka.decide = ({ apiKey }) => (apiKey === PRODUCE ? { at: 'response', act: 'hold' } : undefined);
    await source.sql.query(`INSERT INTO a VALUES (2, 'x')`);
    await kafka.strikes(1);
    const walsender = async () => {
      const { rows } = await source.sql.query<{ pid: number; slot: string; since: number }>(
        `SELECT pid, (SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE active_pid = pid) AS slot,
                extract(epoch FROM reply_time - backend_start)::float AS since
           FROM pg_stat_replication WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)`,
        [source.slot],
      );
      return rows[0]!;
    };
    const before = await walsender();
    const samples: (typeof before)[] = [];
    let id = 2;
    await eventually(
      async () => {
        await source.sql.query(`INSERT INTO a VALUES (${++id}, 'x')`);
        samples.push(await walsender());
        expect(samples.at(-1)!.since).toBeGreaterThan(before.since + 10);
      },
      { timeoutMs: 40_000, intervalMs: 100 },
    );
    // Still the same connection, and it has acknowledged nothing of it.
    expect(new Set(samples.map(({ pid, slot }) => `${pid} ${slot}`))).toEqual(
      new Set([`${before.pid} ${before.slot}`]),
    );
    kafka.decide = () => undefined;
    await kafka.release();
    await everyRowOnce(upTo(id));
    expect(postgres.passed).toHaveLength(id);
    expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 0 });
  });
});

describe('prepared transactions', () => {
  it.each(['running all the time', 'restarted in between'])(
    'C10 are seen once when they are committed, never before or when rolled back: capture %s',
    async (how) => {
      let capture = await source.started(['a']);
      const prepare = (name: string, id: number) =>
        source.sql.query(
          `BEGIN; INSERT INTO a VALUES (${id}, 'x'), (${id + 1}, 'x'); PREPARE TRANSACTION '${source.name}_${name}'`,
        );
      await prepare('kept', 1);
      await prepare('dropped', 3);
      await source.sql.query(`INSERT INTO a VALUES (5, 'x')`);
      await everyRowOnce([5]);
      if (how === 'restarted in between') {
        await capture.stop();
        capture = await source.started(['a']);
      }
      await source.sql.query(`INSERT INTO a VALUES (6, 'x')`);
      await everyRowOnce([5, 6]);
      await source.sql.query(`COMMIT PREPARED '${source.name}_kept'`);
      await source.sql.query(`ROLLBACK PREPARED '${source.name}_dropped'`);
      await source.sql.query(`INSERT INTO a VALUES (7, 'x')`);
      await everyRowOnce([5, 6, 1, 2, 7]);
      const [first, second] = (await source.seen('a')).slice(2, 4);
      expect([first!.seq, second!.seq, first!.tx === second!.tx]).toEqual([0, 1, true]);
      expect(capture.status().state).toBe('streaming');
    },
  );
});
