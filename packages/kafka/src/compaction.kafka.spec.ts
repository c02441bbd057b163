import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogReader, LogWriter, OutRecord } from '@headwater/core';
import { recordsOf, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';
import { fetchedHeaders, smallReader } from './wire.testing.js';

const SEGMENT_MS = 200;
const GAP = 100_000;

describe('reader of compacted topics', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  it(`S10 crosses a gap of ${GAP} compacted offsets in a few fetches`, async () => {
    const topic = await compactedTopic();
    const writer = await fenced();
    await writer.transact([update(topic, 'first', 'kept')]);
    for (let n = 0; n < GAP; n += 20_000) {
      await writer.transact(Array.from({ length: 20_000 }, (_, of) => update(topic, 'k', `${n + of}`)));
    }
    await writer.transact([update(topic, 'k', 'last')]);
    await compacted(topic, writer, async () => (await read(log.reader(), topic)).seen.length < 100);

    const { seen, fetches, ms } = await read(log.reader(), topic);
    expect(seen.filter((value) => value !== 'roll')).toEqual(['kept', 'last']);
    expect(fetches).toBeLessThan(20);
    expect(ms).toBeLessThan(5_000);
  });

  it('S11 moves past fetches that hold only emptied batches', async () => {
    const topic = await compactedTopic();
    // The broker keeps the last batch of a producer that is still known, emptied, to remember its epoch and sequence.
    const writers = await Promise.all(Array.from({ length: 12 }, fenced));
    for (const writer of writers) await writer.transact([update(topic, 'k', 'overwritten')]);
    const last = await fenced();
    await last.transact([update(topic, 'k', 'last')]);
    await compacted(topic, last, async () => (await emptiedBatches(topic)) >= writers.length);

    const { reader, close } = smallReader(1);
    const { seen, empty } = await read(reader, topic);
    expect(seen.filter((value) => value !== 'roll')).toEqual(['last']);
    // One batch per fetch: at least as many without a record as there were writers.
    expect(empty).toBeGreaterThanOrEqual(writers.length);
    await close();
  });

  const update = (topic: string, key: string, value: string): OutRecord => ({
    topic,
    partition: 0,
    key: Buffer.from(key),
    value: Buffer.from(value),
  });

  async function compactedTopic(): Promise<string> {
    const topic = unique('compacted');
    const config = {
      'segment.ms': String(SEGMENT_MS),
      'min.cleanable.dirty.ratio': '0.001',
      'min.compaction.lag.ms': '0',
      'max.compaction.lag.ms': '1',
      'delete.retention.ms': '0',
    };
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact', config }]);
    return topic;
  }

  async function fenced(): Promise<LogWriter> {
    const writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 60_000 });
    await writer.fence();
    return writer;
  }

  /** The active segment is never compacted: writes until it is rolled and the cleaner has been there. */
  async function compacted(topic: string, writer: LogWriter, done: () => Promise<boolean>): Promise<void> {
    await until(async () => {
      expect(await writer.transact([update(topic, 'roll', 'roll')])).toMatchObject({ outcome: 'committed' });
      return (await done()) || undefined;
    });
  }

  /** Everything from the start to the last stable offset, with what it took. */
  async function read(reader: LogReader, topic: string) {
    const { lastStable } = (await log.admin.offsets(topic))[0]!;
    const started = performance.now();
    const seen: (string | null)[] = [];
    let [next, fetches, empty] = [0, 0, 0];
    reader.seek(topic, 0, 0);
    for (; next < lastStable; fetches++) {
      const batches = await reader.poll();
      seen.push(...texts(recordsOf(batches)));
      empty += batches.filter(({ records }) => records.length === 0).length;
      next = batches.at(-1)?.nextOffset ?? next;
    }
    await reader.close();
    return { seen, fetches, empty, ms: performance.now() - started };
  }

  async function emptiedBatches(topic: string): Promise<number> {
    return (await fetchedHeaders(topic)).filter(({ records }) => records === 0).length;
  }
});
