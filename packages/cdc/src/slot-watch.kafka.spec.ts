import { setInterval } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { systemClock } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import type { Log } from '@headwater/core';
import { captureMetrics } from './capture-metrics.js';
import type { Capture } from './capture.js';
import { parseLsn } from './lsn.js';
import { SlotWatch } from './slot-watch.js';
import { brokers, Source } from './source.testing.js';

const END_TXN = 26;

let source: Source;
let kafka: FaultProxy;
let postgres: FaultProxy;
let log: Log;
let watch: SlotWatch;
const warned: string[] = [];
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE unpublished (b text)');
  await source.sql.query('ALTER TABLE unpublished ALTER b SET STORAGE EXTERNAL');
  await source.topics(['a']);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
  log = kafkaLog({ brokers, connect: kafka.connect });
  const server = new URL(source.url);
  postgres = await faultProxy({ target: { host: server.hostname, port: Number(server.port) }, protocol: 'raw' });
  server.port = String(postgres.port);
  const logger = { info: () => undefined, warn: (line: string) => warned.push(line) };
  const { name, slot } = source;
  watch = new SlotWatch({ name, slot, connectionString: server.href, clock: systemClock, logger, intervalMs: 200 });
  watch.start();
});
afterEach(async () => {
  kafka.decide = () => undefined;
  await kafka.release();
  postgres.resume();
  await watch.stop();
  await source.close();
  await log.close();
  await kafka.close();
  await postgres.close();
});

function metricsOf(capture: Capture): ReadonlyMap<string, number> {
  const status = capture.status();
  const metrics = captureMetrics(source.name, status, watch.watched(status.endLsn));
  return new Map(
    metrics
      .filter(({ labels }) => labels['state'] === undefined)
      .map(({ name, value }) => [name.replace('headwater_capture_', ''), value]),
  );
}

/** What the server says, in the same words. */
async function truth(): Promise<ReadonlyMap<string, number>> {
  const { rows } = await source.sql.query<{ retained: string; unconfirmed: string; active: boolean }>(
    `SELECT (pg_current_wal_lsn() - restart_lsn)::text AS retained, (pg_current_wal_lsn() - confirmed_flush_lsn)::text AS unconfirmed, active
       FROM pg_replication_slots WHERE slot_name = $1`,
    [source.slot],
  );
  const { retained, unconfirmed, active } = rows[0]!;
  return new Map([
    ['slot_retained_bytes', Number(retained)],
    ['slot_unconfirmed_bytes', Number(unconfirmed)],
    ['slot_active', active ? 1 : 0],
  ]);
}

const wal = (megabytes: number) =>
  source.sql.query(`INSERT INTO unpublished SELECT repeat('x', 1048576) FROM generate_series(1, $1)`, [megabytes]);

/** Within a second the metrics say what the server says, to 10 %. */
async function areTrue(capture: Capture): Promise<void> {
  await eventually(
    async () => {
      const [found, wanted] = [metricsOf(capture), await truth()];
      for (const [name, value] of wanted) {
        const told = found.get(name) ?? Number.NaN;
        if (!(Math.abs(told - value) <= Math.max(value * 0.1, 65_536)))
          throw new Error(`${name}: ${told}, really ${value}`);
      }
    },
    { timeoutMs: 1_000 },
  );
}

describe('figures of a slot', () => {
  it('C80 are true and grow while publishing hangs, while capture is stopped, and while the server is silent', async () => {
    const capture = await source.started(['a'], { log });
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await eventually(() => expect(metricsOf(capture).get('lag_seconds')).toBe(0));
    await areTrue(capture);

    kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'hold' } : undefined);
    await source.sql.query(`INSERT INTO a VALUES (2, 'y')`);
    await kafka.strikes(1);
    const hung = performance.now();
    let last = 0;
    for await (const _ of setInterval(250)) {
      await wal(2);
      await areTrue(capture);
      await eventually(() => expect(metricsOf(capture).get('lag_bytes')!).toBeGreaterThan(last), { timeoutMs: 1_000 });
      last = metricsOf(capture).get('lag_bytes')!;
      if (performance.now() - hung > 3_000) break;
    }
    const lagged = (performance.now() - hung) / 1000;
    expect(metricsOf(capture).get('lag_seconds')!).toBeGreaterThan(lagged - 1);
    expect(metricsOf(capture).get('lag_seconds')!).toBeLessThan(lagged + 1.5);

    kafka.decide = () => undefined;
    await kafka.release();
    await source.seenCount('a', 2);
    await eventually(() => expect(metricsOf(capture).get('lag_seconds')).toBe(0));
    await capture.stop();
    await source.slotFree();
    await wal(4);
    await areTrue(capture);
    expect(metricsOf(capture).get('slot_active')).toBe(0);
    const before = metricsOf(capture);
    await wal(4);
    await eventually(() => {
      const now = metricsOf(capture);
      for (const name of ['lag_seconds', 'lag_bytes', 'slot_retained_bytes'])
        expect(now.get(name)!).toBeGreaterThan(before.get(name)!);
    });

    // No figure of a server that does not answer; what is known without it goes on.
    postgres.pause();
    await eventually(() => expect(metricsOf(capture).has('slot_retained_bytes')).toBe(false), { timeoutMs: 15_000 });
    const silent = metricsOf(capture).get('lag_seconds')!;
    await eventually(() => expect(metricsOf(capture).get('lag_seconds')!).toBeGreaterThan(silent));
    expect(warned.join()).toMatch(/health of its slot cannot be read/);
    postgres.resume();
    postgres.cutAll();
    await eventually(() => areTrue(capture), { timeoutMs: 20_000 });
  });

  it('C39 follows the WAL under load of tables that are not published, after a position that covers it', async () => {
    const capture = await source.started(['a'], { log });
    const { rows: start } = await source.sql.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn');
    let beyond = 0;
    const [watching, sampled] = [new AbortController(), { count: 0 }];
    const samples = (async () => {
      for await (const _ of setInterval(100)) {
        if (watching.signal.aborted) return;
        const facts = (await source.slotFacts())!;
        const position = await source.lastPosition();
        sampled.count += 1;
        if (parseLsn(facts.confirmed) > position.endLsn) beyond += 1;
      }
    })();
    const writer = await source.client();
    for (let written = 0; written < 16; written++) {
      await writer.query(`INSERT INTO unpublished SELECT repeat('x', 1048576) FROM generate_series(1, 64)`);
      await writer.query('TRUNCATE unpublished');
    }
    const { rows } = await source.sql.query<{ lsn: string; gigabyte: boolean }>(
      'SELECT pg_current_wal_lsn() AS lsn, pg_current_wal_lsn() - $1::pg_lsn > 1024::numeric * 1024 * 1024 AS gigabyte',
      [start[0]!.lsn],
    );
    expect(rows[0]!.gigabyte).toBe(true);
    await eventually(
      async () => {
        await source.sql.query('CHECKPOINT');
        const { rows: slots } = await source.sql.query(
          `SELECT confirmed_flush_lsn >= $2::pg_lsn AS followed, pg_current_wal_lsn() - restart_lsn < 2 * 16777216 AS small
             FROM pg_replication_slots WHERE slot_name = $1`,
          [source.slot, rows[0]!.lsn],
        );
        expect(slots).toEqual([{ followed: true, small: true }]);
      },
      { timeoutMs: 30_000 },
    );
    watching.abort();
    await samples;
    expect([beyond, sampled.count > 0]).toEqual([0, true]);
    expect(capture.status().rows).toBe(0);
  });
});
