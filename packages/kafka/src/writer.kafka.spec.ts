import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { committedRecords, newTopic, testLog, texts, unique } from './broker.testing.js';
import { eventually } from './eventually.testing.js';

describe('writer', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  const record = (topic: string, value: string, more: Partial<OutRecord> = {}): OutRecord => ({
    topic,
    key: Buffer.from(value),
    value: Buffer.from(value),
    ...more,
  });

  it('writes keys, values, tombstones, headers and timestamps as given', async () => {
    const topic = await newTopic(log, 1, { 'retention.ms': '-1' });
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const outcome = await writer.transact([
      {
        topic,
        key: Buffer.from('k'),
        value: Buffer.from('v'),
        headers: [
          ['é', Buffer.from('1')],
          ['n', null],
        ],
        timestamp: 1_700_000_000_000,
      },
      { topic, partition: 0, key: null, value: null, timestamp: 1_600_000_000_000 },
    ]);
    expect(outcome).toMatchObject({ outcome: 'committed' });
    expect(await committedRecords(log, topic)).toEqual([
      {
        topic,
        partition: 0,
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: Buffer.from('k'),
        value: Buffer.from('v'),
        headers: [
          ['é', Buffer.from('1')],
          ['n', null],
        ],
      },
      { topic, partition: 0, offset: 1, timestamp: 1_600_000_000_000, key: null, value: null, headers: [] },
    ]);
  });

  it('streams many appends through one transaction, in order, unseen before the commit', async () => {
    const topic = await newTopic(log, 3);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const transaction = writer.begin();
    for (let batch = 0; batch < 5; batch++) {
      await transaction.append(Array.from({ length: 100 }, (_, n) => record(topic, `${batch * 100 + n}`)));
    }
    await transaction.append([]);
    expect((await log.admin.offsets(topic)).map(({ lastStable }) => lastStable)).toEqual([0, 0, 0]);
    expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
    const records = await committedRecords(log, topic);
    expect(records).toHaveLength(500);
    for (let partition = 0; partition < 3; partition++) {
      const values = records.filter((of) => of.partition === partition).map(({ value }) => Number(value));
      expect(values).toEqual([...values].sort((a, b) => a - b));
    }
  });

  it('S55 runs 1,000 transactions with offsets back to back, loses none and ends at the last offsets', async () => {
    const topic = await newTopic(log, 1);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    const milliseconds: number[] = [];
    for (let n = 0; n < 1_000; n++) {
      const startedAt = performance.now();
      const offsets = { membership, offsets: [{ topic, partition: 0, next: n + 1 }] };
      expect(await writer.transact([record(topic, `${n}`)], offsets)).toMatchObject({ outcome: 'committed' });
      milliseconds.push(performance.now() - startedAt);
    }
    // A wait for the transaction before it would be in every one of them; single stalls of the machine are not meant.
    expect(milliseconds.sort((a, b) => a - b)[950]).toBeLessThan(300);
    expect(await log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: 1_000 },
    ]);
    expect(texts(await committedRecords(log, topic))).toEqual(Array.from({ length: 1_000 }, (_, n) => `${n}`));
  });

  it('tells where each partition stands after the transaction, markers not counted', async () => {
    const topic = await newTopic(log, 3);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const at = (partition: number, value: string) => record(topic, value, { partition });
    const first = await writer.transact([at(0, 'a'), at(2, 'b'), at(0, 'c')]);
    expect(first).toEqual({
      outcome: 'committed',
      appended: [
        { topic, partition: 0, next: 2 },
        { topic, partition: 2, next: 1 },
      ],
    });
    // The marker of the first one takes offset 2; it may come later than the next transaction's records otherwise.
    await committedRecords(log, topic);
    const transaction = writer.begin();
    await transaction.append([at(0, 'd')]);
    await transaction.append([at(0, 'e')]);
    const second = await transaction.commit();
    expect(second).toEqual({ outcome: 'committed', appended: [{ topic, partition: 0, next: 5 }] });
    expect((await committedRecords(log, topic)).map(({ partition, offset }) => `${partition}:${offset}`)).toEqual([
      '0:0',
      '0:1',
      '0:3',
      '0:4',
      '2:0',
    ]);
  });

  it('splits a large append into batches the broker takes', async () => {
    const topic = await newTopic(log, 2);
    const writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 30_000 });
    await writer.fence();
    const value = Buffer.alloc(300_000, 7);
    const records = Array.from({ length: 60 }, (_, n) => ({
      topic,
      partition: n % 2,
      key: Buffer.from(`${n}`),
      value,
    }));
    expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
    const keys = (await committedRecords(log, topic)).map(({ key }) => Number(key));
    expect(keys).toEqual([...records.keys()].sort((a, b) => (a % 2) - (b % 2) || a - b));
  });

  it('S45 shows nothing of a transaction with one record too large among ten, and commits no offsets of it', async () => {
    const topic = await newTopic(log, 1);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    const offsets = { membership, offsets: [{ topic, partition: 0, next: 7 }] };
    const records = Array.from({ length: 10 }, (_, n) => record(topic, `${n}`));
    records[6] = { topic, partition: 0, key: null, value: Buffer.alloc(1_100_000) };
    const outcome = await writer.transact(records, offsets);
    expect(await log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: -1 },
    ]);
    expect(outcome).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'RECORD_TOO_LARGE', retryable: false, facts: { topic } },
    });
    expect(outcome).not.toHaveProperty('fenced');
    expect(await writer.transact([record(topic, 'next')])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['next']);
  });

  it('S45 shows nothing of a transaction whose record only the topic finds too large, and goes on after it', async () => {
    const topic = await newTopic(log, 1, { 'max.message.bytes': '2000' });
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const transaction = writer.begin();
    await transaction.append([record(topic, 'small')]);
    await expect(
      transaction.append([{ topic, partition: 0, key: null, value: Buffer.alloc(5_000) }]),
    ).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', cause: { code: 'RECORD_TOO_LARGE' } });
    expect(await writer.transact([record(topic, 'next')])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['next']);
  });

  it('commits nothing without asking the broker, and refuses a writer that is not fenced', async () => {
    const elsewhere = testLog({ brokers: ['127.0.0.1:1'] });
    const unfenced = elsewhere.writer({ transactionalId: 'x' });
    expect(await unfenced.transact([])).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_WRITER_NOT_READY' },
      fenced: 'writer',
    });
    await elsewhere.close();
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    expect(await writer.begin().commit()).toMatchObject({ outcome: 'committed' });
    expect(await writer.transact([])).toMatchObject({ outcome: 'committed' });
  });

  it('aborts on request and is ready at once', async () => {
    const topic = await newTopic(log, 1);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    for (let n = 0; n < 3; n++) {
      const transaction = writer.begin();
      await transaction.append([record(topic, `aborted ${n}`)]);
      expect(await transaction.abort('changed my mind')).toEqual({ outcome: 'aborted', cause: 'changed my mind' });
      expect(await writer.transact([record(topic, `committed ${n}`)])).toMatchObject({ outcome: 'committed' });
    }
    expect(texts(await committedRecords(log, topic))).toEqual(['committed 0', 'committed 1', 'committed 2']);
  });

  it('fences a zombie writer, whose open transaction is never seen', async () => {
    const topic = await newTopic(log, 1);
    const transactionalId = unique('writer');
    const zombie = log.writer({ transactionalId });
    await zombie.fence();
    const transaction = zombie.begin();
    await transaction.append([record(topic, 'zombie')]);
    const successor = log.writer({ transactionalId });
    await successor.fence();
    expect(await successor.transact([record(topic, 'successor')])).toMatchObject({ outcome: 'committed' });
    await expect(transaction.append([record(topic, 'late')])).rejects.toMatchObject({ code: 'LOG_WRITER_FENCED' });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await zombie.transact([record(topic, 'later')])).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(texts(await committedRecords(log, topic))).toEqual(['successor']);
  });

  it('S44 tells a writer whose transaction the broker timed out; readers go on meanwhile', async () => {
    const topic = await newTopic(log, 1);
    const writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 1_500 });
    await writer.fence();
    const transaction = writer.begin();
    await transaction.append([record(topic, 'slow')]);
    // Another writer's record behind it is read as soon as the broker has ended it: the last stable offset moves on.
    const other = log.writer({ transactionalId: unique('writer') });
    await other.fence();
    expect(await other.transact([record(topic, 'other')])).toMatchObject({ outcome: 'committed' });
    expect((await log.admin.offsets(topic))[0]!.lastStable).toBe(0);
    await eventually(async () => ((await log.admin.offsets(topic))[0]!.lastStable > 0 ? true : undefined));
    expect(texts(await committedRecords(log, topic))).toEqual(['other']);
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    await writer.fence();
    expect(await writer.transact([record(topic, 'again')])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['other', 'again']);
  });

  it('names a topic that does not exist', async () => {
    const writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 1_000 });
    await writer.fence();
    const missing = unique('missing');
    expect(await writer.transact([record(missing, 'x')])).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_TOPIC_MISSING', facts: { topic: missing } },
    });
  });
});
