import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, kafkaCluster, type KafkaCluster, settledOffsets } from '@headwater/testing';
import { formatLsn, parseLsn } from './lsn.js';
import { positionRecord, readRecords } from './position.js';
import { Source } from './source.testing.js';

const EAGER_COMPACTION = {
  'segment.ms': '200',
  'min.cleanable.dirty.ratio': '0.001',
  'min.compaction.lag.ms': '0',
  'max.compaction.lag.ms': '1',
};

let cluster: KafkaCluster;
let source: Source;
beforeAll(async () => {
  cluster = await kafkaCluster({ brokers: 1, settings: { 'log.cleaner.backoff.ms': '100' } });
});
afterAll(() => cluster?.stop());
beforeEach(async () => {
  source = await Source.open(undefined, cluster.brokers);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
});
afterEach(() => source.close());

async function positionTopic(spec: { partitions?: number; cleanupPolicy?: 'compact' | 'delete'; config?: object }) {
  const given = { partitions: 1, cleanupPolicy: 'compact', ...spec } as const;
  await source.log.admin.ensureTopics([
    { ...given, topic: source.positionTopic, config: { ...given.config } as Record<string, string> },
  ]);
}

/** Position records that a reader of the topic is given, whatever was compacted away. */
async function kept(): Promise<number> {
  const [bounds] = await settledOffsets(source.log, source.positionTopic);
  let count = 0;
  await readRecords(source.log, source.positionTopic, 0, bounds!.start, bounds!.lastStable, () => (count += 1));
  return count;
}

describe('the position topic', () => {
  it('C101 is found after its compaction and a restart of the broker', async () => {
    await positionTopic({ config: EAGER_COMPACTION });
    const capture = await source.started(['a']);
    let id = 0;
    // A position for each row; only what is behind the active segment is compacted, and each row begins another.
    await eventually(
      async () => {
        await source.sql.query(`INSERT INTO a VALUES (${++id}, 'x')`);
        await source.seenCount('a', id);
        expect(id).toBeGreaterThan(20);
        expect(await kept()).toBeLessThan(id / 2);
      },
      { timeoutMs: 40_000 },
    );
    await capture.stop();
    await cluster.nodes[0]!.stop();
    await cluster.nodes[0]!.start();
    await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (0, 'after')`);
    const seen = await source.seenCount('a', id + 1, 30_000);
    expect(seen.map(({ key, op }) => `${op} ${key}`)).toEqual(
      [...Array.from({ length: id }, (_, n) => n + 1), 0].map((key) => `c ${key}`),
    );
  });

  it.each([
    ['of several partitions', { partitions: 2 }, { setting: 'partitions', wanted: '1', found: '2' }],
    [
      'that forgets by time',
      { cleanupPolicy: 'delete' },
      { setting: 'cleanup.policy', wanted: 'compact', found: 'delete' },
    ],
  ] as const)('C101 is refused as one %s, and nothing is made on the source', async (_, spec, difference) => {
    await positionTopic(spec);
    await expect(source.capture(['a']).start()).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      facts: { differences: [{ topic: source.positionTopic, ...difference }] },
    });
    expect(await source.slotFacts()).toBeUndefined();
  });

  it('C101 is not believed where its last record was aborted', async () => {
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await capture.stop();
    const position = await source.lastPosition();
    const ahead = parseLsn('F/0');
    const writer = source.log.writer({ transactionalId: `${source.name}-foreign` });
    await writer.fence();
    const transaction = writer.begin();
    const record = positionRecord(source.positionTopic, source.name, { ...position, commitLsn: ahead, endLsn: ahead });
    await transaction.append([record]);
    expect(await transaction.abort()).toMatchObject({ outcome: 'aborted' });
    await writer.close();
    expect(formatLsn((await source.lastPosition()).endLsn)).toBe(formatLsn(position.endLsn));
    await source.slotFree();
    await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (2, 'x')`);
    expect((await source.seenCount('a', 2)).map(({ key }) => key)).toEqual(['1', '2']);
  });
});
