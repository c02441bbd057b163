import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { kafkaCluster, type KafkaCluster } from '@headwater/testing';
import { recordBatch } from './batch.testing.js';
import { committedRecords, newTopic, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';
import { OUT_OF_ORDER_SEQUENCE_NUMBER } from './kafka.errors.js';
import { kafkajsClient } from './kafkajs-hook.js';
import type { Lane } from './lane.js';
import { produceOnce } from './produce.js';
import { ProducerEpoch } from './producer-epoch.js';
import { describeTransaction } from './requests/admin.js';
import { TRANSACTION } from './requests/call.js';
import { initProducerId } from './requests/transaction.js';
import { Wire } from './wire.js';

const TRANSACTIONAL_ID_NOT_FOUND = 105;

const one = (topic: string, value: string): OutRecord => ({
  topic,
  partition: 0,
  key: null,
  value: Buffer.from(value),
});

describe('a broker that forgets idle producers', () => {
  let cluster: KafkaCluster;
  let log: Log;
  let wire: Wire;
  let lane: Lane;
  beforeAll(async () => {
    cluster = await kafkaCluster({
      brokers: 1,
      settings: {
        'transactional.id.expiration.ms': '1000',
        'transaction.remove.expired.transaction.cleanup.interval.ms': '100',
        'producer.id.expiration.ms': '1000',
        'producer.id.expiration.check.interval.ms': '100',
      },
    });
    log = testLog({ brokers: cluster.brokers });
    wire = wireTo(cluster.brokers);
    lane = wire.lane();
  });
  afterAll(async () => {
    await wire?.close();
    await log?.close();
    await cluster?.stop();
  });

  it('S56 commits the next transactions under new ids after the ids expired while idle', async () => {
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    // Both of the writer's producers.
    for (const value of ['a', 'b'])
      expect(await writer.transact([one(topic, value)])).toMatchObject({ outcome: 'committed' });
    await forgotten(writer.transactionalId);
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    for (const [n, value] of ['c', 'd', 'e'].entries()) {
      const offsets = { membership, offsets: [{ topic, partition: 0, next: n + 1 }] };
      expect(await writer.transact([one(topic, value)], offsets)).toMatchObject({ outcome: 'committed' });
    }
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c', 'd', 'e']);
    expect(await log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }])).toMatchObject([
      { next: 3 },
    ]);
  });

  it('S56 aborts a streamed transaction under an expired id, without fencing, and goes on', async () => {
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    await forgotten(writer.transactionalId);
    const transaction = writer.begin();
    await expect(transaction.append([one(topic, 'x')])).rejects.toMatchObject({ code: 'LOG_WRITER_EXPIRED' });
    const outcome = await transaction.commit();
    expect(outcome).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_WRITER_EXPIRED', retryable: true } });
    expect(outcome).not.toHaveProperty('fenced');
    for (const value of ['a', 'b', 'c'])
      expect(await writer.transact([one(topic, value)])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c']);
  });

  it('S56 is fenced when another writer took the expired id', async () => {
    const topic = await newTopic(log);
    const transactionalId = unique('writer');
    const idle = log.writer({ transactionalId });
    await idle.fence();
    await forgotten(transactionalId);
    const successor = log.writer({ transactionalId });
    await successor.fence();
    expect(await idle.transact([one(topic, 'x')])).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    for (const value of ['a', 'b'])
      expect(await successor.transact([one(topic, value)])).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b']);
  });

  /** Resolves when the broker knows neither id of the writer any more. */
  async function forgotten(transactionalId: string): Promise<void> {
    for (const id of [transactionalId, `${transactionalId}~2`]) {
      await until(async () => {
        const answer = await wire.coordinated(TRANSACTION, id, describeTransaction(id), lane, { deadlineMs: 10_000 });
        return answer.error === TRANSACTIONAL_ID_NOT_FOUND ? true : undefined;
      });
    }
  }
});

describe('sequence numbers', () => {
  let wire: Wire;
  let log: Log;
  beforeAll(() => {
    log = testLog();
    wire = wireTo(testBrokers());
  });
  afterAll(async () => {
    await wire.close();
    await log.close();
  });

  it('S57 wraps the sequence after 2^31 - 1: the broker takes what goes on from 0, knows a repetition and keeps the order', async () => {
    const topic = await newTopic(log);
    const producer = new ProducerEpoch(await wire.anyAnswer(initProducerId(null, 60_000), { deadlineMs: 10_000 }));
    const sender = { wire, lane: wire.lane(), transactionalId: null, apiVersion: 9 } as const;
    const send = async (baseSequence: number, values: readonly string[]) => {
      const records = values.map((value) => one(topic, value));
      const { producerId, epoch } = producer;
      const bytes = recordBatch(records, { producerId, epoch, baseSequence }, Date.now(), undefined, 'plain');
      const [attempt] = await produceOnce(sender, [{ topic, partition: 0, records: values.length, bytes }]);
      return attempt!;
    };
    const next = (records: number) => producer.takeSequence({ topic, partition: 0 }, records);
    // A producer without history may begin anywhere.
    next(2 ** 31 - 5);
    expect(await send(next(2), ['a', 'b'])).toMatchObject({ result: 'appended', baseOffset: 0 });
    const across = next(5);
    expect(await send(across, ['c', 'd', 'e', 'f', 'g'])).toMatchObject({ result: 'appended', baseOffset: 2 });
    expect(await send(next(1), ['h'])).toMatchObject({ result: 'appended', baseOffset: 7 });
    expect(await send(across, ['c', 'd', 'e', 'f', 'g'])).toMatchObject({ result: 'appended', baseOffset: 2 });
    // Not wrapped, or off by one: refused.
    expect(await send(2 ** 31 - 1, ['x'])).toMatchObject({ result: 'refused', error: OUT_OF_ORDER_SEQUENCE_NUMBER });
    expect(await send(next(1) + 1, ['x'])).toMatchObject({ result: 'refused', error: OUT_OF_ORDER_SEQUENCE_NUMBER });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']);
  });
});

function wireTo(brokers: readonly string[]): Wire {
  return new Wire(kafkajsClient({ brokers, clientId: 'test' }).connections, { brokers, requestTimeoutMs: 4_000 });
}
