import { setInterval } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Log } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy, settledOffsets, testDatabase } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import { Client } from 'pg';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { openReplicationSession } from './postgres-session.js';
import { brokers, Source } from './source.testing.js';

const END_TXN = 26;
const SEGMENT = 16n * 1024n * 1024n;

let source: Source;
let kafka: FaultProxy;
let behindProxy: Log | undefined;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  kafka.decide = () => undefined;
  await kafka.release();
  await source.close();
  await behindProxy?.close();
  behindProxy = undefined;
  await kafka.close();
});

function kafkaBehindProxy(): Log {
  behindProxy = kafkaLog({ brokers, connect: () => ({ host: '127.0.0.1', port: kafka.port }) });
  return behindProxy;
}

async function publishedAndStopped(): Promise<void> {
  const capture = await source.started(['a']);
  await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x')`);
  await source.seenCount('a', 2);
  await capture.stop();
  await source.slotFree();
}

/** How many sessions this database has had; every try opens one. */
const sessionsSeen = 'SELECT sessions::int AS n FROM pg_stat_database WHERE datname = current_database()';

describe('slot against position', () => {
  it('C103 has the server take the last acknowledgement of a stop, however much it still has to send', async () => {
    await publishedAndStopped();
    await source.sql.query(`
      DO $$ BEGIN
        FOR i IN 1..300 LOOP
          INSERT INTO a SELECT g, repeat('x', 200) FROM generate_series(i * 1000, i * 1000 + 499) g;
          COMMIT;
        END LOOP;
      END $$`);
    for (let stop = 1; stop <= 5; stop++) {
      const before = (await source.lastPosition()).endLsn;
      const capture = await source.started(['a'], { maxBatchRows: 500, maxQueuedBytes: 50_000 });
      await eventually(async () => expect((await source.lastPosition()).endLsn).toBeGreaterThan(before));
      await capture.stop();
      await settledOffsets(source.log, source.positionTopic);
      const { endLsn } = await source.lastPosition();
      expect(parseLsn((await source.slotFacts())!.confirmed)).toBe(endLsn);
    }
  });

  it('C29 refuses a slot that is ahead of the position', async () => {
    await publishedAndStopped();
    await source.sql.query(`INSERT INTO a VALUES (3, 'lost')`);
    await source.sql.query('SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())', [source.slot]);
    const before = await source.slotFacts();
    const records = await source.seen('a');
    await expect(source.started(['a'])).rejects.toMatchObject({
      code: 'CDC_SLOT_AHEAD',
      message: expect.stringMatching(new RegExp(`${before!.confirmed}.*position ends at .*snapshot`)),
    });
    expect(await source.slotFacts()).toEqual(before);
    expect(await source.seen('a')).toHaveLength(records.length);
    await source.started(['a'], { snapshot: 'when-needed' });
    await source.foldEqualsTable();
  });

  it('C31 refuses a missing slot, or takes a snapshot when needed', async () => {
    await publishedAndStopped();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.query(`DELETE FROM a WHERE id = 1; UPDATE a SET b = 'y'; INSERT INTO a VALUES (3, 'z')`);
    await expect(source.started(['a'])).rejects.toMatchObject({ code: 'CDC_SLOT_MISSING' });
    expect(await source.slotFacts()).toBeUndefined();
    await source.started(['a'], { snapshot: 'when-needed' });
    await source.foldEqualsTable();
  });

  it('C34 waits while another connection holds the slot and streams when it is free', async () => {
    await publishedAndStopped();
    const holder = await openReplicationSession(source.url, 'holder');
    holder
      .query(
        `START_REPLICATION SLOT "${source.slot}" LOGICAL 0/0 (proto_version '1', publication_names '"${source.slot}"')`,
      )
      .catch(() => {});
    const pid = await eventually(async () => {
      const found = (await source.slotFacts())?.pid;
      if (found == null) throw new Error('not held');
      return found;
    });
    const capture = await source.started(['a']);
    expect(capture.status().state).toBe('waiting');
    expect(source.messages.join('\n')).toContain(`pid ${pid}`);
    // Two more tries have not changed that.
    const tries = async () => (await source.sql.query<{ n: number }>(sessionsSeen)).rows[0]!.n;
    const before = await tries();
    await eventually(async () => expect(await tries()).toBeGreaterThan(before + 1));
    expect([capture.status().state, source.errors]).toEqual(['waiting', []]);
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await source.sql.query('SELECT pg_terminate_backend($1)', [pid]);
    await eventually(() => expect(capture.status().state).toBe('streaming'), { timeoutMs: 15_000 });
    await source.seenCount('a', 3);
    await holder.end().catch(() => {});
  });

  it('lets a second instance wait and take over', async () => {
    const first = await source.started(['a']);
    const second = await source.started(['a']);
    expect(second.status().state).toBe('waiting');
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await first.stop();
    await source.sql.query(`INSERT INTO a VALUES (2, 'x')`);
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ key }) => key)).toEqual(['1', '2']);
    expect(source.errors).toEqual([]);
  });

  it('C38 follows the WAL on an idle database, after a position that covers it', async () => {
    await source.sql.query('CREATE TABLE unpublished (b text)');
    await source.started(['a'], { log: kafkaBehindProxy() });
    const elsewhere = await testDatabase(source.url);
    const other = new Client({ connectionString: elsewhere.url });
    await other.connect();
    try {
      // Without a committed position nothing is acknowledged, although the server has sent its LSN.
      const start = await source.walLsn();
      kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'hold' } : undefined);
      await other.query('CREATE TABLE t (b text)');
      const noise = `SELECT repeat(md5(g::text), 50) FROM generate_series(1, 6000) g`;
      for (let segment = 0; segment < 3; segment++) {
        await other.query(`INSERT INTO t ${noise}`);
        await source.sql.query(`INSERT INTO unpublished ${noise}`);
        await other.query('SELECT pg_switch_wal()');
      }
      const mark = await source.walLsn();
      expect(mark - start > 3n * SEGMENT).toBe(true);
      const sent = `SELECT sent_lsn AS lsn FROM pg_stat_replication WHERE pid = $1`;
      await eventually(async () => {
        const { rows } = await source.sql.query<{ lsn: string }>(sent, [(await source.slotFacts())!.pid]);
        expect(parseLsn(rows[0]!.lsn) >= mark).toBe(true);
      });
      const confirmed = async () => parseLsn((await source.slotFacts())!.confirmed);
      expect((await confirmed()) < mark).toBe(true);
      kafka.decide = () => undefined;
      await kafka.release();
      await eventually(
        async () => {
          const lsn = await confirmed();
          expect(lsn <= (await source.lastPosition()).endLsn).toBe(true);
          expect(lsn >= mark).toBe(true);
        },
        { timeoutMs: 30_000 },
      );
      await eventually(
        async () => {
          await source.sql.query('CHECKPOINT');
          const { rows } = await source.sql.query<{ bytes: string }>(
            'SELECT (pg_current_wal_lsn() - restart_lsn)::text AS bytes FROM pg_replication_slots WHERE slot_name = $1',
            [source.slot],
          );
          expect(BigInt(rows[0]!.bytes)).toBeLessThan(2n * SEGMENT);
        },
        { timeoutMs: 30_000, intervalMs: 250 },
      );
      expect(await source.seen('a')).toEqual([]);
    } finally {
      await other.end();
      await elsewhere.drop();
    }
  });

  it('C40 never acknowledges more than the last committed position, with Kafka gone and back', async () => {
    const capture = await source.started(['a'], { log: kafkaBehindProxy() });
    const rounds = 60;
    let [id, sampling] = [0, true];
    const writing = (async () => {
      while (sampling) await source.sql.query(`INSERT INTO a VALUES (${++id}, 'x')`);
    })();
    const watcher = await source.client();
    const samples: { readonly confirmed: Lsn; readonly endLsn: Lsn; readonly cut: boolean }[] = [];
    try {
      for await (const _ of setInterval(100)) {
        const cut = samples.length % 20 >= 10;
        if (samples.length % 10 === 0) {
          kafka.decide = () => (cut ? { at: 'request', act: 'close' } : undefined);
          if (cut) kafka.cutAll();
        }
        const { rows } = await watcher.query<{ confirmed: string }>(
          'SELECT confirmed_flush_lsn AS confirmed FROM pg_replication_slots WHERE slot_name = $1',
          [source.slot],
        );
        const confirmed = parseLsn(rows[0]!.confirmed);
        // A commit is answered before its marker is in the position topic; without a commit there is none while the log is cut off.
        const endLsn = await eventually(
          async () => {
            const position = await source.lastPosition();
            if (position.endLsn < confirmed) throw new Error('not visible');
            return position.endLsn;
          },
          { timeoutMs: 800 },
        ).catch(async () => (await source.lastPosition()).endLsn);
        samples.push({ confirmed, endLsn, cut });
        if (samples.length === rounds) break;
      }
    } finally {
      sampling = false;
      kafka.decide = () => undefined;
      await writing;
    }
    expect(samples.filter(({ confirmed, endLsn }) => confirmed > endLsn)).toEqual([]);
    for (const cut of [true, false])
      expect(samples.filter((sample) => sample.cut === cut).length).toBeGreaterThanOrEqual(25);
    // It did move while it was sampled, and requests were cut.
    expect(new Set(samples.map(({ confirmed }) => confirmed)).size).toBeGreaterThan(5);
    expect(kafka.log.length).toBeGreaterThan(0);
    const seen = await source.seenCount('a', id, 30_000);
    expect(seen.map(({ key }) => Number(key))).toEqual(Array.from({ length: id }, (_, i) => i + 1));
    await capture.stop();
    expect(parseLsn((await source.slotFacts())!.confirmed)).toBe((await source.lastPosition()).endLsn);
  });

  it('commits and acknowledges at stop, and the next start repeats nothing', async () => {
    const capture = await source.started(['a']);
    const writing = (async () => {
      for (let id = 0; id < 500; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    })();
    await source.seenCount('a', 50);
    await capture.stop();
    await source.slotFree();
    expect(parseLsn((await source.slotFacts())!.confirmed)).toBe((await source.positions()).at(-1)!.endLsn);
    await writing;
    const next = await source.started(['a']);
    expect(next.status().state).toBe('streaming');
    const seen = await source.seenCount('a', 500);
    expect(seen.map(({ key }) => key)).toEqual(Array.from({ length: 500 }, (_, id) => String(id)));
  });
});
