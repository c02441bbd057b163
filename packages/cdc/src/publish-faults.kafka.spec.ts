import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import type { ProcessOptions } from './capture-process.testing.js';
import { postgresProxy } from './postgres-proxy.testing.js';
import type { PostgresProxy } from './postgres-proxy.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
let kafka: FaultProxy;
let postgres: PostgresProxy;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a'], 2);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
  postgres = await postgresProxy(source.url);
});
afterEach(async () => {
  kafka.decide = () => undefined;
  await kafka.release();
  await source.close();
  await Promise.all([kafka.close(), postgres.close()]);
});

const started = (more: Partial<ProcessOptions> = {}) =>
  source.process(['a'], { kafkaPort: kafka.port, connectionString: postgres.url, ...more });

async function everyRowOnce(count: number): Promise<void> {
  const seen = await source.seenCount('a', count, 30_000);
  expect(seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(
    Array.from({ length: count }, (_, i) => i + 1),
  );
}

/** A partition's part of a Produce response without error (v9 to v12): five fixed fields, no record errors, no message, no tags. */
const PRODUCED_BYTES = 33;

/** The response without one of the partitions of a topic; undefined when it does not have both. */
function withoutPartition(frame: Buffer, topic: string, partition: number): Buffer | undefined {
  const named = frame.indexOf(topic);
  if (named < 0) return undefined;
  const count = named + topic.length;
  if (frame[count] !== 3) return undefined;
  const first = count + 1;
  const at = frame.readInt32BE(first) === partition ? first : first + PRODUCED_BYTES;
  const rest = Buffer.concat([frame.subarray(0, at), frame.subarray(at + PRODUCED_BYTES)]);
  rest.writeUInt8(2, count);
  rest.writeInt32BE(rest.length - 4, 0);
  return rest;
}

describe('faults around publishing, in one process', () => {
  it('C91 takes no Produce as done whose answer lacks a partition: its batch is sent again before the end, rows once', async () => {
    await started();
    const topic = source.topic('a');
    const order: string[] = [];
    const rewrite = (frame: Buffer): Buffer => {
      const rest = order.includes('cut') ? undefined : withoutPartition(frame, topic, 1);
      if (rest !== undefined) order.push('cut');
      return rest ?? frame;
    };
    kafka.decide = ({ apiKey, frame }) => {
      if (apiKey === END_TXN && order.length > 0) order.push('end');
      if (apiKey !== PRODUCE || !frame.includes(topic)) return undefined;
      order.push('produce');
      return { at: 'response', act: 'rewrite', rewrite };
    };
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 100) g`);
    await everyRowOnce(100);
    expect(order.slice(0, 4)).toEqual(['produce', 'cut', 'produce', 'end']);
  });

  it('C92 goes on after each of 20 resets at the end of a log transaction', async () => {
    // How long the driver tries to end one.
    const capture = await started({ transactionTimeoutMs: 5_000 });
    for (let round = 1; round <= 20; round++) {
      let struck = false;
      kafka.decide = ({ apiKey }) => {
        if (apiKey !== END_TXN || struck) return undefined;
        struck = true;
        return { at: round % 2 === 0 ? 'request' : 'response', act: 'reset' };
      };
      await source.sql.query(`INSERT INTO a VALUES (${round}, 'x')`);
      await everyRowOnce(round);
      expect(struck).toBe(true);
    }
    // Each of them was healed by the driver. One that stays unknown is learned from the position, under a new producer.
    let replaced = false;
    kafka.decide = ({ apiName }) => {
      replaced ||= apiName === 'InitProducerId';
      return apiName === 'EndTxn' && !replaced ? { at: 'request', act: 'reset' } : undefined;
    };
    await source.sql.query(`INSERT INTO a VALUES (21, 'x')`);
    await everyRowOnce(21);
    expect(replaced).toBe(true);
    expect(capture.errors.at(-1)).toMatchObject({ code: 'CDC_PUBLISH_FAILED' });
    expect(capture.running).toBe(true);
  });

  it('C89 begins a new connection at the position, not at what the lost one had received', async () => {
    const capture = await started();
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    kafka.decide = ({ apiKey }) => (apiKey === PRODUCE ? { at: 'request', act: 'hold' } : undefined);
    for (let id = 2; id <= 100; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    await eventually(() => expect(postgres.passed).toHaveLength(100));
    expect(await source.seen('a')).toHaveLength(1);
    await source.sql.query('SELECT pg_terminate_backend($1)', [(await source.slotFacts())!.pid]);
    kafka.decide = () => undefined;
    await kafka.release();
    await everyRowOnce(100);
    await source.sql.query(`INSERT INTO a VALUES (101, 'x')`);
    await everyRowOnce(101);
    expect((await capture.status()).reconnects).toBe(1);
    // They were received twice, and seen once.
    const again = postgres.passed.slice(100);
    expect(again.length).toBeGreaterThan(1);
    expect(postgres.passed).toContainEqual(again[0]);
  });
});
