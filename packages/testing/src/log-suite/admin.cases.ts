import { expect, it } from '@jest/globals';
import { uniqueName } from '../unique-name.js';
import { one, type Bench } from './log-under-test.js';

export function adminCases(bench: Bench): void {
  it('S108 creates what is missing, takes what is there, and deletes', async () => {
    const [a, b, missing] = ['a', 'b', 'missing'].map(uniqueName) as [string, string, string];
    const specs = [
      { topic: a, partitions: 2, cleanupPolicy: 'compact', config: { 'segment.ms': '60000' } },
      { topic: b, partitions: 1, cleanupPolicy: 'delete' },
    ] as const;
    const { admin } = bench.log;
    await admin.ensureTopics(specs.slice(0, 1));
    await admin.ensureTopics(specs);
    await admin.ensureTopics(specs);
    expect(await admin.partitionCounts([a, b, missing])).toEqual(
      new Map([
        [a, 2],
        [b, 1],
      ]),
    );
    expect(await admin.offsets(a)).toEqual(
      [0, 1].map((partition) => ({ topic: a, partition, start: 0, lastStable: 0, high: 0 })),
    );
    await expect(admin.offsets(missing)).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISSING',
      facts: { topic: missing },
    });
    await admin.deleteTopics([a, b, missing]);
    expect(await admin.partitionCounts([a, b])).toEqual(new Map());
  });

  it('S108 lists every difference between wanted and found', async () => {
    const topic = await bench.topic(2, { 'retention.ms': '1000' });
    const spec = { topic, partitions: 3, cleanupPolicy: 'compact', config: { 'retention.ms': '2000' } } as const;
    await expect(bench.log.admin.ensureTopics([spec])).rejects.toMatchObject({
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

  it('S108 shows an open transaction between last stable offset and high watermark', async () => {
    const topic = await bench.topic();
    const transaction = (await bench.writer()).begin();
    await transaction.append(one(topic, 'x'));
    expect(await bench.log.admin.offsets(topic)).toEqual([{ topic, partition: 0, start: 0, lastStable: 0, high: 1 }]);
    await transaction.abort();
  });

  it('S108 answers nothing after it was closed', async () => {
    const log = await bench.another();
    const writer = await bench.writer({}, log);
    await log.close();
    await expect(log.admin.partitionCounts(['x'])).rejects.toMatchObject({ code: 'LOG_CLOSED' });
    await expect(writer.fence()).rejects.toMatchObject({ code: 'LOG_CLOSED' });
    expect(await writer.transact([])).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_CLOSED' } });
  });
}
