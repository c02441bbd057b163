import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { settledOffsets } from '@headwater/testing';
import { committedRecords, lossyNetwork, newTopic, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';

describe('admin', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  it('S82 counts the lag to the last stable offset: an idle group beside a foreign open transaction has none', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const writer = await fenced();
    const offsets = (next: number) => ({
      membership: { groupId, memberId: '', generation: -1 },
      offsets: [{ topic, partition: 0, next }],
    });
    await writer.transact([...records(topic, 0, 3), ...records(topic, 1, 2)]);
    await settledOffsets(log, topic);
    const [first] = await log.admin.lag(groupId, [topic]);
    expect(first).toEqual({ topic, partition: 0, committed: -1, lastStable: 4, lag: 4 });
    await writer.transact([], offsets(4));
    const foreign = (await fenced()).begin();
    await foreign.append([...records(topic, 0, 5), ...records(topic, 1, 5)]);
    await until(async () => (await log.admin.offsets(topic))[0]!.high === 9 || undefined);
    const lag = () => log.admin.lag(groupId, [topic]);
    await until(async () => (await lag())[0]!.committed === 4 || undefined);
    expect(await lag()).toEqual([
      { topic, partition: 0, committed: 4, lastStable: 4, lag: 0 },
      { topic, partition: 1, committed: -1, lastStable: 3, lag: 3 },
    ]);
    // A commit that hangs in an open transaction does not hold the question.
    const network = await lossyNetwork();
    network.proxy.decide = ({ apiName }) => (apiName === 'EndTxn' ? { at: 'request', act: 'hold' } : undefined);
    const hanging = (await fenced(network.log({ requestTimeoutMs: 10_000 }))).transact([], offsets(3));
    await network.proxy.strikes(1);
    expect((await lag())[0]).toEqual({ topic, partition: 0, committed: 4, lastStable: 4, lag: 0 });
    await network.proxy.release();
    expect(await hanging).toMatchObject({ outcome: 'committed' });
    await until(async () => (await lag())[0]!.lag === 1 || undefined);
    await network.close();
    await foreign.commit();
    await until(async () => (await lag())[0]!.lag === 7 || undefined);
    await expect(log.admin.lag(groupId, [unique('missing')])).rejects.toMatchObject({ code: 'LOG_TOPIC_MISSING' });
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
    await settledOffsets(log, topic);
    expect(texts(await committedRecords(log, topic))).toEqual(['0-0', '0-0']);
  });

  async function fenced(of = log) {
    const writer = of.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 60_000 });
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
