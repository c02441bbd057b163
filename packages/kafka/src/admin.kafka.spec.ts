import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log } from '@headwater/core';
import { newTopic, testLog, unique } from './broker.testing.js';

describe('admin', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  it('creates what is missing and takes what is there', async () => {
    const [a, b] = [unique('a'), unique('b')];
    const specs = [
      { topic: a, partitions: 2, cleanupPolicy: 'compact', config: { 'segment.ms': '60000' } },
      { topic: b, partitions: 1, cleanupPolicy: 'delete' },
    ] as const;
    await log.admin.ensureTopics(specs.slice(0, 1));
    await log.admin.ensureTopics(specs);
    await log.admin.ensureTopics(specs);
    expect(await log.admin.partitionCounts([a, b, unique('missing')])).toEqual(
      new Map([
        [a, 2],
        [b, 1],
      ]),
    );
    expect(await log.admin.offsets(a)).toEqual(
      [0, 1].map((partition) => ({ topic: a, partition, start: 0, lastStable: 0, high: 0 })),
    );
    await log.admin.deleteTopics([a, b, unique('missing')]);
    expect(await log.admin.partitionCounts([a, b])).toEqual(new Map());
  });

  it('lists every difference between wanted and found', async () => {
    const topic = await newTopic(log, 2, { 'retention.ms': '1000' });
    const spec = { topic, partitions: 3, cleanupPolicy: 'compact', config: { 'retention.ms': '2000' } } as const;
    await expect(log.admin.ensureTopics([spec])).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      facts: {
        differences: [
          { topic, setting: 'partitions', wanted: '3', found: '2' },
          { topic, setting: 'retention.ms', wanted: '2000', found: '1000' },
          { topic, setting: 'cleanup.policy', wanted: 'compact', found: 'delete' },
        ],
      },
    });
  });

  it('shows an open transaction between last stable offset and high watermark', async () => {
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const transaction = writer.begin();
    await transaction.append([{ topic, partition: 0, key: null, value: Buffer.from('x') }]);
    expect(await log.admin.offsets(topic)).toEqual([{ topic, partition: 0, start: 0, lastStable: 0, high: 1 }]);
    await transaction.abort();
  });

  it('names a cluster that cannot be reached, and can be closed', async () => {
    const nowhere = testLog({ brokers: ['127.0.0.1:1'] });
    await expect(nowhere.admin.partitionCounts(['x'])).rejects.toMatchObject({
      code: 'KAFKA_UNREACHABLE',
      retryable: true,
    });
    await nowhere.close();
    await expect(nowhere.admin.partitionCounts(['x'])).rejects.toMatchObject({ code: 'LOG_CLOSED' });
  });
});
