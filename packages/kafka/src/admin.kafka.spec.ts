import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { committedRecords, newTopic, testLog, texts, unique } from './broker.testing.js';
import { eventually } from './eventually.testing.js';

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

  it('S82 counts the lag to the last stable offset: an idle group beside a foreign open transaction has none', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const writer = await fenced();
    const offsets = (next: number) => ({
      membership: { groupId, memberId: '', generation: -1 },
      offsets: [{ topic, partition: 0, next }],
    });
    await writer.transact([...records(topic, 0, 3), ...records(topic, 1, 2)]);
    await allStable(topic);
    const [first] = await log.admin.lag(groupId, [topic]);
    expect(first).toEqual({ topic, partition: 0, committed: -1, lastStable: 4, lag: 4 });
    await writer.transact([], offsets(4));
    const foreign = (await fenced()).begin();
    await foreign.append([...records(topic, 0, 5), ...records(topic, 1, 5)]);
    await eventually(async () => (await log.admin.offsets(topic))[0]!.high === 9 || undefined);
    const lag = () => log.admin.lag(groupId, [topic]);
    await eventually(async () => (await lag())[0]!.committed === 4 || undefined);
    expect(await lag()).toEqual([
      { topic, partition: 0, committed: 4, lastStable: 4, lag: 0 },
      { topic, partition: 1, committed: -1, lastStable: 3, lag: 3 },
    ]);
    // A commit that hangs in an open transaction does not hold the question.
    const pending = writer.begin();
    await pending.append(records(topic, 0, 1));
    expect((await lag())[0]).toEqual({ topic, partition: 0, committed: 4, lastStable: 4, lag: 0 });
    await pending.abort();
    await foreign.commit();
    await eventually(async () => (await lag())[0]!.lag === 8 || undefined);
    await expect(log.admin.lag(groupId, [unique('missing')])).rejects.toMatchObject({ code: 'LOG_TOPIC_MISSING' });
  });

  it('tells what differs before it changes anything, creates and alters, and refuses what would lose order', async () => {
    const [there, missing] = [unique('there'), unique('missing')];
    await log.admin.ensureTopics([
      { topic: there, partitions: 2, cleanupPolicy: 'compact', config: { 'segment.ms': '60000', 'retention.ms': '7' } },
    ]);
    const specs = [
      { topic: there, partitions: 2, cleanupPolicy: 'delete', replicationFactor: 1, config: { 'segment.ms': '90000' } },
      { topic: missing, partitions: 3, cleanupPolicy: 'compact', config: { 'min.compaction.lag.ms': '5' } },
    ] as const;
    const wanted = [
      { topic: there, setting: 'segment.ms', wanted: '90000', found: '60000', remedy: expect.any(String) },
      { topic: there, setting: 'cleanup.policy', wanted: 'delete', found: 'compact', remedy: expect.any(String) },
      { topic: missing, setting: 'topic', wanted: 'exists', found: undefined, remedy: expect.any(String) },
    ];
    expect(await log.admin.diffTopics(specs)).toEqual(wanted);
    const lasting = [{ ...specs[0], partitions: 4, replicationFactor: 3 }, specs[1]];
    await expect(log.admin.applyTopics(lasting)).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      facts: {
        differences: [
          { topic: there, setting: 'partitions', wanted: '4', found: '2' },
          { topic: there, setting: 'replication.factor', wanted: '3', found: '1' },
        ],
      },
    });
    await expect(log.admin.applyTopics([{ ...specs[0], partitions: 1 }])).rejects.toThrow('lose their order');
    expect(await log.admin.diffTopics(specs)).toEqual(wanted);

    expect(await log.admin.applyTopics(specs)).toEqual(wanted);
    expect(await log.admin.diffTopics(specs)).toEqual([]);
    expect(await log.admin.applyTopics(specs)).toEqual([]);
    // What the spec does not name stays as it was.
    const kept = { ...specs[0], config: { 'retention.ms': '7' } };
    expect(await log.admin.diffTopics([kept])).toEqual([]);
    const refused = log.admin.applyTopics([{ ...specs[0], config: { 'segment.ms': '-5' } }]);
    await expect(refused).rejects.toMatchObject({ code: 'KAFKA_REFUSED', facts: { topic: there } });
  });

  it('gives a topic that is made again another id', async () => {
    const topic = await newTopic(log);
    const before = await log.admin.topicIds([topic, unique('missing')]);
    expect([...before.keys()]).toEqual([topic]);
    expect(await log.admin.topicIds([topic])).toEqual(before);
    await log.admin.deleteTopics([topic]);
    expect(await log.admin.topicIds([topic])).toEqual(new Map());
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
    const after = await log.admin.topicIds([topic]);
    expect(after.get(topic)).toMatch(/^[\w-]{22}$/);
    expect(after.get(topic)).not.toBe(before.get(topic));
  });

  it('finds the open transaction of a writer that is gone, and frees its partitions by fencing it', async () => {
    const topic = await newTopic(log, 2);
    const gone = testLog();
    const startedAtMs = Date.now();
    const dead = gone.writer({ transactionalId: unique('dead'), transactionTimeoutMs: 600_000 });
    await dead.fence();
    const left = dead.begin();
    await left.append([...records(topic, 0, 2), ...records(topic, 1, 1)]);
    const lively = await fenced();
    await lively.transact(records(topic, 0, 1));
    expect(await log.admin.openTransactions(topic, 60_000)).toEqual([]);
    const open = await log.admin.openTransactions(topic, 0);
    expect(open).toEqual(
      [0, 1].map((partition) => ({
        topic,
        partition,
        firstOffset: 0,
        coordinatorEpoch: -1,
        transactionalId: expect.stringContaining(dead.transactionalId),
        producerId: expect.anything(),
        epoch: expect.any(Number),
        startedAtMs: expect.any(Number),
      })),
    );
    expect(Math.abs(open[0]!.startedAtMs! - startedAtMs)).toBeLessThan(30_000);
    expect((await log.admin.offsets(topic)).map(({ lastStable }) => lastStable)).toEqual([0, 0]);

    await log.admin.abortOpenTransaction(open[0]!);
    await allStable(topic);
    expect(await log.admin.openTransactions(topic, 0)).toEqual([]);
    expect(texts(await committedRecords(log, topic))).toEqual(['0-0']);
    expect(await left.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    // Ended already: the writer that took the id since is left alone.
    const heir = log.writer({ transactionalId: dead.transactionalId });
    await heir.fence();
    const going = heir.begin();
    await going.append(records(topic, 1, 1));
    await log.admin.abortOpenTransaction(open[1]!);
    expect(await going.commit()).toMatchObject({ outcome: 'committed' });
    await gone.close();
  });

  it('ends a transaction that no coordinator owns up to on its partition alone', async () => {
    const topic = await newTopic(log);
    const writer = await fenced();
    await writer.transact(records(topic, 0, 1));
    const left = writer.begin();
    await left.append(records(topic, 0, 2));
    await (await fenced()).transact(records(topic, 0, 1));
    const [open] = await log.admin.openTransactions(topic, 0);
    // As it looks when the coordinator has forgotten it.
    const { transactionalId, startedAtMs, ...hanging } = open!;
    expect([transactionalId, startedAtMs]).toEqual([
      expect.stringContaining(writer.transactionalId),
      expect.any(Number),
    ]);
    await log.admin.abortOpenTransaction(hanging);
    await log.admin.abortOpenTransaction(hanging);
    await allStable(topic);
    expect(texts(await committedRecords(log, topic))).toEqual(['0-0', '0-0']);
  });

  async function fenced() {
    const writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 60_000 });
    await writer.fence();
    return writer;
  }

  function records(topic: string, partition: number, count: number): OutRecord[] {
    return Array.from({ length: count }, (_, n) => ({
      topic,
      partition,
      key: null,
      value: Buffer.from(`${partition}-${n}`),
    }));
  }

  /** The coordinator answers a commit before it has written the markers. */
  async function allStable(topic: string): Promise<void> {
    await eventually(async () => {
      const offsets = await log.admin.offsets(topic);
      return offsets.every(({ lastStable, high }) => lastStable === high) || undefined;
    });
  }

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
