import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log } from '@headwater/core';
import { committedRecords, newTopic, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { TransactionalProducer } from './transactional-producer.js';
import { Wire } from './wire.js';

describe('two producers in turn', () => {
  let log: Log;
  let wire: Wire;
  beforeAll(() => {
    log = testLog();
    const brokers = testBrokers();
    wire = new Wire(kafkajsClient({ brokers, clientId: 'other' }).connections, { brokers, requestTimeoutMs: 4_000 });
  });
  afterAll(async () => {
    await wire.close();
    await log.close();
  });

  const one = (topic: string, value: string) => [{ topic, partition: 0, key: null, value: Buffer.from(value) }];

  /** What another writer does that gets only one of the two ids. */
  async function take(transactionalId: string): Promise<void> {
    const lane = wire.lane();
    await new TransactionalProducer(transactionalId).initialise('anyway', {
      wire,
      lane,
      timeoutMs: 8_000,
      deadlineMs: 10_000,
    });
    await wire.release(lane);
  }

  it('takes the second id back while it holds the first', async () => {
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    await take(`${writer.transactionalId}~2`);
    expect(await writer.transact(one(topic, 'a'))).toMatchObject({ outcome: 'committed' });
    const refused = await writer.transact(one(topic, 'refused'));
    expect(refused).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_WRITER_FENCED', retryable: true } });
    expect(refused).not.toHaveProperty('fenced');
    for (const value of ['b', 'c', 'd'])
      expect(await writer.transact(one(topic, value))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c', 'd']);
  });

  it('is fenced before any effect when another writer holds the first id', async () => {
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    await take(writer.transactionalId);
    expect(await writer.transact(one(topic, 'refused'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await writer.transact(one(topic, 'refused'))).toMatchObject({ cause: { code: 'LOG_WRITER_NOT_READY' } });
    await writer.fence();
    expect(await writer.transact(one(topic, 'a'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a']);
  });

  it('is fenced at the second id when another writer holds both', async () => {
    const topic = await newTopic(log);
    const transactionalId = unique('writer');
    const zombie = log.writer({ transactionalId });
    await zombie.fence();
    expect(await zombie.transact(one(topic, 'a'))).toMatchObject({ outcome: 'committed' });
    const open = zombie.begin();
    await open.append(one(topic, 'late'));
    const successor = log.writer({ transactionalId });
    await successor.fence();
    expect(await open.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    for (const value of ['b', 'c', 'd'])
      expect(await successor.transact(one(topic, value))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c', 'd']);
  });

  it('refuses an id that would be another writer’s second', () => {
    expect(() => log.writer({ transactionalId: 'bank~2' })).toThrow(
      expect.objectContaining({ code: 'LOG_OPTIONS_INVALID' }),
    );
  });
});
