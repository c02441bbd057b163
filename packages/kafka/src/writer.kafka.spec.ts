import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { RecordRuns, type Log, type OutRecord } from '@headwater/core';
import { committedRecords, newTopic, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';

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
    // A wait for the transaction before it would be in every one of them; stalls of the machine are not meant.
    expect(milliseconds.sort((a, b) => a - b)[500]).toBeLessThan(50);
    expect(await log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: 1_000 },
    ]);
    expect(texts(await committedRecords(log, topic))).toEqual(Array.from({ length: 1_000 }, (_, n) => `${n}`));
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

  it.each(['producer', 'uncompressed'])(
    'cuts what it compresses to what a topic takes that stores it as %s',
    async (compression) => {
      const topic = await newTopic(log, 1, { 'max.message.bytes': '10000', 'compression.type': compression });
      const packing = testLog({ compression: 'gzip' });
      const writer = packing.writer({ transactionalId: unique('writer') });
      await writer.fence();
      // Of all of them neither the text fits nor what it is packed into.
      const bytes = Array.from({ length: 200 }, () => randomBytes(125).toString('hex').padEnd(500, '.'));
      const records = bytes.map((text) => record(topic, text));
      expect(await writer.transact(records)).toMatchObject({
        outcome: 'aborted',
        cause: { code: 'LOG_BATCH_TOO_LARGE', retryable: true, facts: { topic, partition: 0, limit: 10_000 } },
      });
      expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
      const alike = bytes.map(() => record(topic, 'x'.repeat(500)));
      expect(await writer.transact(alike)).toMatchObject({ outcome: 'committed' });
      expect(texts(await committedRecords(log, topic))).toEqual(
        [...records, ...alike].map(({ value }) => value!.toString()),
      );
      await packing.close();
    },
  );

  it('names the record whose timestamp its topic does not take, among others and in a run, and goes on', async () => {
    const topic = await newTopic(log, 1, { 'message.timestamp.before.max.ms': '60000' });
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const runs = new RecordRuns();
    runs.openTopic(topic, 1).add(record(topic, 'old'));
    const hourAgo = Date.now() - 3_600_000;
    const run = runs.take('everything', hourAgo);
    for (const inputs of [[record(topic, 'before'), record(topic, 'old', { timestamp: hourAgo })], run]) {
      expect(await writer.transact(inputs)).toMatchObject({
        outcome: 'aborted',
        cause: {
          code: 'RECORD_INVALID',
          retryable: false,
          message: expect.stringMatching(/"old" for good: INVALID_TIMESTAMP \(32\): .*imestamp/),
          facts: { topic, partition: 0, key: 'old', error: 32 },
        },
      });
    }
    expect(await writer.transact([record(topic, 'next')])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['next']);
  });

  it('learns from a batch that fits packed and not as the topic stores it', async () => {
    const topic = await newTopic(log, 1, { 'max.message.bytes': '10000', 'compression.type': 'uncompressed' });
    const packing = testLog({ compression: 'gzip' });
    const writer = packing.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const records = Array.from({ length: 200 }, () => record(topic, 'x'.repeat(500)));
    const refused = await writer.transact(records);
    expect(refused).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_BATCH_TOO_LARGE', facts: { limit: 10_000 } },
    });
    expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
    expect(await committedRecords(log, topic)).toHaveLength(200);
    await packing.close();
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
    await until(async () => ((await log.admin.offsets(topic))[0]!.lastStable > 0 ? true : undefined));
    expect(texts(await committedRecords(log, topic))).toEqual(['other']);
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    await writer.fence();
    expect(await writer.transact([record(topic, 'again')])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['other', 'again']);
  });
});
