import { expect, it } from '@jest/globals';
import type { PartitionOffset } from '@headwater/core';
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
    const policies = [a, b, missing].map((topic) => admin.cleanupPolicy(topic));
    expect(await Promise.all(policies)).toEqual([specs[0].cleanupPolicy, specs[1].cleanupPolicy, undefined]);
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

  it('S108 tells what differs before it changes anything, then creates and alters, and refuses what would lose order', async () => {
    const [there, missing] = ['there', 'missing'].map(uniqueName) as [string, string];
    const { admin } = bench.log;
    await admin.ensureTopics([
      { topic: there, partitions: 2, cleanupPolicy: 'compact', config: { 'segment.ms': '60000' } },
    ]);
    const specs = [
      { topic: there, partitions: 2, cleanupPolicy: 'delete', replicationFactor: 1, config: { 'segment.ms': '90000' } },
      { topic: missing, partitions: 3, cleanupPolicy: 'compact' },
    ] as const;
    const remedy: unknown = expect.any(String);
    const differences = [
      { topic: there, setting: 'segment.ms', wanted: '90000', found: '60000', remedy },
      { topic: there, setting: 'cleanup.policy', wanted: 'delete', found: 'compact', remedy },
      { topic: missing, setting: 'topic', wanted: 'exists', found: undefined, remedy },
    ];
    expect(await admin.diffTopics(specs)).toEqual(differences);
    const lasting = [{ ...specs[0], partitions: 4, replicationFactor: 3 }, specs[1]];
    await expect(admin.applyTopics(lasting)).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      facts: {
        differences: [
          { topic: there, setting: 'partitions', wanted: '4', found: '2' },
          { topic: there, setting: 'replication.factor', wanted: '3', found: '1' },
        ],
      },
    });
    expect(await admin.diffTopics(specs)).toEqual(differences);
    expect(await admin.applyTopics(specs)).toEqual(differences);
    expect(await admin.diffTopics(specs)).toEqual([]);
    expect(await admin.applyTopics(specs)).toEqual([]);
  });

  it('S108 gives a topic that is made again another id', async () => {
    const topic = await bench.topic();
    const { admin } = bench.log;
    const before = await admin.topicIds([topic, uniqueName('missing')]);
    expect([...before.keys()]).toEqual([topic]);
    await admin.deleteTopics([topic]);
    expect(await admin.topicIds([topic])).toEqual(new Map());
    await admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
    expect((await admin.topicIds([topic])).get(topic)).not.toBe(before.get(topic));
  });

  it('S108 finds the first offset at or after a time, and the end where there is none', async () => {
    const topic = await bench.topic(2, { 'retention.ms': '-1' });
    const at = (timestamp: number) => ({ topic, partition: 0, key: null, value: null, timestamp });
    await (await bench.writer()).transact([at(1_000), at(2_000), at(3_000)]);
    await bench.committed(topic);
    // A marker has a time too, so the end may be the marker's offset: nothing is delivered from there on.
    const found = async (timestampMs: number) =>
      (await bench.log.admin.offsetsForTime(topic, timestampMs)).map(({ next }) => Math.min(next, 3));
    expect([await found(0), await found(1_001), await found(3_000), await found(3_001)]).toEqual([
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
  });

  it('S108 counts the lag of a group to the last stable offset, beside open and pending transactions', async () => {
    const topic = await bench.topic(2);
    const groupId = uniqueName('group');
    const member = bench.member(groupId, [topic]);
    const { membership } = await member.holding(2);
    const writer = await bench.writer({ transactionTimeoutMs: 30_000 });
    const lag = async () => (await bench.log.admin.lag(groupId, [topic])).map((of) => [of.committed, of.lag]);
    await writer.transact([...one(topic, 'a'), ...one(topic, 'b')]);
    await bench.committed(topic);
    expect(await lag()).toEqual([
      [-1, 3],
      [-1, 0],
    ]);
    await writer.transact([], { membership, offsets: [{ topic, partition: 0, next: 3 }] });
    await bench.log.admin.committedOffsets(groupId, [{ topic, partition: 0 }]);
    const open = (await bench.writer()).begin();
    await open.append(one(topic, 'open'));
    expect(await lag()).toEqual([
      [3, 0],
      [-1, 0],
    ]);
    await open.commit();
    await bench.committed(topic);
    expect((await lag())[0]).toEqual([3, 2]);
    await member.group.stop();
  });

  it('S108 finds the topics of a group by what it has committed, with all their partitions, and none of a group that nobody knows', async () => {
    const { admin } = bench.log;
    const [a, b, foreign, gone] = ['a', 'b', 'foreign', 'gone'].map(uniqueName) as [string, string, string, string];
    await admin.ensureTopics(
      [a, b, foreign, gone].map((topic) => ({ topic, partitions: 2, cleanupPolicy: 'delete' }) as const),
    );
    const writer = await bench.writer();
    const commit = async (groupId: string, offsets: readonly PartitionOffset[]) => {
      await writer.transact([], { membership: { groupId, memberId: '', generation: -1 }, offsets });
      await admin.committedOffsets(groupId, offsets);
    };
    await writer.transact([...one(a, 'x'), ...one(b, 'y')]);
    await Promise.all([a, b].map((topic) => bench.committed(topic)));
    const groupId = uniqueName('group');
    await commit(groupId, [
      { topic: gone, partition: 0, next: 0 },
      { topic: b, partition: 1, next: 0 },
      { topic: a, partition: 0, next: 1 },
    ]);
    await commit(uniqueName('other'), [{ topic: foreign, partition: 0, next: 0 }]);
    await admin.deleteTopics([gone]);
    expect(await admin.lag(groupId)).toEqual([
      { topic: a, partition: 0, committed: 1, lastStable: 2, lag: 1 },
      { topic: a, partition: 1, committed: -1, lastStable: 0, lag: 0 },
      { topic: b, partition: 0, committed: -1, lastStable: 2, lag: 2 },
      { topic: b, partition: 1, committed: 0, lastStable: 0, lag: 0 },
    ]);
    expect(await admin.lag(uniqueName('unknown'))).toEqual([]);
  });

  it('S108 finds the open transaction of a writer that is gone, and frees all its partitions by fencing it', async () => {
    const topic = await bench.topic(2);
    const { admin } = bench.log;
    const dead = await bench.writer({ transactionTimeoutMs: 600_000 }, await bench.another());
    const left = dead.begin();
    await left.append([...one(topic, 'a'), { topic, partition: 1, key: null, value: null }]);
    expect(await admin.openTransactions(topic, 60_000)).toEqual([]);
    const open = await admin.openTransactions(topic, 0);
    const facts = open.map(({ partition, firstOffset, coordinatorEpoch }) => [
      partition,
      firstOffset,
      coordinatorEpoch,
    ]);
    expect(facts).toEqual([
      [0, 0, -1],
      [1, 0, -1],
    ]);
    await admin.abortOpenTransaction(open[0]!);
    expect(await bench.texts(topic)).toEqual([]);
    expect(await admin.openTransactions(topic, 0)).toEqual([]);
    await admin.abortOpenTransaction(open[1]!);
    await expect(admin.openTransactions(`${topic}-not`, 0)).rejects.toMatchObject({ code: 'LOG_TOPIC_MISSING' });
    expect(await left.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
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
