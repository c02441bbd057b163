import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogWriter, OutRecord } from '@headwater/core';
import { committedRecords, newTopic, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { END_TXN, PRODUCE, faultProxy, type Fault, type FaultProxy } from './fault-proxy.testing.js';

describe('writer behind a faulty network', () => {
  let log: Log;
  let proxy: FaultProxy;
  let faulty: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());
  afterEach(async () => {
    await faulty.close();
    await proxy.close();
  });

  const one = (topic: string, value: string): OutRecord[] => [
    { topic, partition: 0, key: null, value: Buffer.from(value) },
  ];

  /** A fenced writer whose requests of `apiKey` meet the fault, the first `times` of them. */
  async function writerWith(apiKey: number, fault: Fault, times: number): Promise<LogWriter> {
    let left = times;
    proxy = await faultProxy(testBrokers()[0]!, (request) =>
      request.apiKey === apiKey && left-- > 0 ? fault : undefined,
    );
    faulty = testLog({ connect: proxy.connect, requestTimeoutMs: 1_000 });
    const writer = faulty.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 8_000 });
    await writer.fence();
    return writer;
  }

  const losses = [
    { at: 'reply', act: 'drop' },
    { at: 'reply', act: 'close' },
    { at: 'request', act: 'drop' },
    { at: 'request', act: 'close' },
  ] as const;

  for (const fault of losses) {
    it(`S39 doubles nothing and loses nothing when a Produce ${fault.at} meets ${fault.act}`, async () => {
      const topic = await newTopic(log);
      const writer = await writerWith(PRODUCE, fault, 2);
      const transaction = writer.begin();
      await transaction.append(one(topic, 'a'));
      await transaction.append(one(topic, 'b'));
      expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
      expect(await writer.transact(one(topic, 'c'))).toMatchObject({ outcome: 'committed' });
      expect(proxy.struck()).toBe(2);
      expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c']);
    });
  }

  for (const fault of losses.filter(({ at }) => at === 'reply')) {
    it(`learns by asking again that a commit landed whose EndTxn reply met ${fault.act}`, async () => {
      const topic = await newTopic(log);
      const writer = await writerWith(END_TXN, fault, 2);
      expect(await writer.transact(one(topic, 'a'))).toMatchObject({ outcome: 'committed' });
      expect(await writer.transact(one(topic, 'b'))).toMatchObject({ outcome: 'committed' });
      expect(proxy.struck()).toBe(2);
      expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b']);
    });
  }

  it('S40 is unknown while no EndTxn reply arrives; after fence() the commit is seen once and the writer goes on', async () => {
    const topic = await newTopic(log);
    const writer = await writerWith(END_TXN, { at: 'reply', act: 'close' }, Infinity);
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    const offsets = { membership, offsets: [{ topic, partition: 0, next: 5 }] };
    expect(await writer.transact(one(topic, 'landed'), offsets)).toMatchObject({ outcome: 'unknown' });
    expect(await writer.transact(one(topic, 'refused'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    await writer.fence();
    // The truth: the offsets are there, so the batch is not run again.
    expect(await faulty.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toEqual(offsets.offsets);
    expect(texts(await committedRecords(log, topic))).toEqual(['landed']);
    const healthy = log.writer({ transactionalId: writer.transactionalId });
    await healthy.fence();
    expect(await healthy.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['landed', 'next']);
  });

  it('S41 is unknown while no EndTxn request arrives; after fence() nothing of it is seen and the batch runs again once', async () => {
    const topic = await newTopic(log);
    const writer = await writerWith(END_TXN, { at: 'request', act: 'close' }, Infinity);
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    const offsets = { membership, offsets: [{ topic, partition: 0, next: 5 }] };
    expect(await writer.transact(one(topic, 'batch'), offsets)).toMatchObject({ outcome: 'unknown' });
    await writer.fence();
    expect(await faulty.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: -1 },
    ]);
    expect(texts(await committedRecords(log, topic))).toEqual([]);
    const healthy = log.writer({ transactionalId: writer.transactionalId });
    await healthy.fence();
    expect(await healthy.transact(one(topic, 'batch'), offsets)).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['batch']);
  });

  it('commits when only the first EndTxn request was lost', async () => {
    const topic = await newTopic(log);
    const writer = await writerWith(END_TXN, { at: 'request', act: 'drop' }, 1);
    expect(await writer.transact(one(topic, 'a'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a']);
  });
});
