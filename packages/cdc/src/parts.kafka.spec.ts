import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import type { CaptureOptions } from './capture.options.js';
import type { CaptureProcess } from './capture-process.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const ROWS = 50_000;

let source: Source;
let kafka: FaultProxy;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE c (id int PRIMARY KEY, b text)');
  await source.topics(['a', 'c'], 2);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  await source.close();
  await kafka.close();
});

/** Small parts: the transaction takes many requests. */
const started = (snapshot: CaptureOptions['snapshot'] = 'initial'): Promise<CaptureProcess> =>
  source.process(['a', 'c'], { kafkaPort: kafka.port, maxBatchRows: 5_000, maxBatchBytes: 1_000_000, snapshot });

/** Writes one transaction over both tables, and kills the capture with three parts of it in the log and the fourth on its way. */
async function killedBetweenParts(): Promise<string> {
  const capture = await started();
  let parts = 0;
  kafka.decide = ({ apiKey, bytes }) => {
    if (apiKey !== PRODUCE || bytes < 50_000) return undefined;
    parts += 1;
    return parts === 4 ? { at: 'request', act: 'drop' } : undefined;
  };
  const { rows } = await source.sql.query<{ xid: string }>(
    `WITH a AS (INSERT INTO a SELECT g, 'x' FROM generate_series(1, ${ROWS}) g),
            c AS (INSERT INTO c SELECT g, 'x' FROM generate_series(1, ${ROWS}) g)
       SELECT pg_current_xact_id()::text AS xid`,
  );
  await kafka.strikes(1);
  await capture.kill();
  const bounds = [
    ...(await source.log.admin.offsets(source.topic('a'))),
    ...(await source.log.admin.offsets(source.topic('c'))),
  ];
  expect(bounds.some(({ high }) => high > 0)).toBe(true);
  expect(bounds.map(({ lastStable }) => lastStable)).toEqual([0, 0, 0, 0]);
  kafka.decide = () => undefined;
  return rows[0]!.xid;
}

/** Every row of the transaction once, numbered from 0 without a gap over both topics. */
async function wholeOnce(xid: string): Promise<void> {
  const all = [...(await source.seenCount('a', ROWS, 60_000)), ...(await source.seenCount('c', ROWS, 60_000))];
  expect(all.filter(({ tx }) => tx !== xid)).toEqual([]);
  const seqs = all.map(({ seq }) => seq).toSorted((x, y) => x - y);
  expect(seqs).toHaveLength(2 * ROWS);
  expect(seqs.findIndex((seq, index) => seq !== index)).toBe(-1);
  for (const table of ['a', 'c'])
    expect(new Set(all.filter(({ record }) => record.topic === source.topic(table)).map(({ key }) => key)).size).toBe(
      ROWS,
    );
}

describe('kill -9 between the parts of a source transaction', () => {
  it('C14 shows nothing of the parts that were sent, and the whole once after the restart, hw_seq 0…n−1', async () => {
    const xid = await killedBetweenParts();
    await started();
    await wholeOnce(xid);
  });

  it('C94 refuses to go on when a table was taken out of the publication in between; no part is ever seen alone', async () => {
    const xid = await killedBetweenParts();
    await source.sql.query(`ALTER PUBLICATION "${source.slot}" DROP TABLE c`);
    await expect(started()).rejects.toThrow(/CDC_TABLE_UNPUBLISHED: public\.c .*new snapshot/);
    expect([await source.seen('a'), await source.seen('c')]).toEqual([[], []]);
    await started('when-needed');
    for (const table of ['a', 'c']) {
      const rows = await source.seenCount(table, ROWS, 60_000);
      expect(new Set(rows.map(({ key }) => key)).size).toBe(ROWS);
      expect(rows.filter(({ tx }) => tx === xid)).toEqual([]);
    }
  });
});
