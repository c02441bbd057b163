import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { committedRecords, lossyNetwork, newTopic, testLog, texts, unique } from './broker.testing.js';

describe('requests that arrive late', () => {
  let log: Log;
  let network: Awaited<ReturnType<typeof lossyNetwork>>;
  beforeAll(async () => {
    log = testLog();
    network = await lossyNetwork();
  });
  afterAll(async () => {
    await network.close();
    await log.close();
  });

  const one = (topic: string, value: string): OutRecord[] => [
    { topic, partition: 0, key: null, value: Buffer.from(value) },
  ];

  /** The next request of that name is taken aside until released; what follows it passes. */
  function keepNext(wanted: string): { kept(): Promise<void> } {
    const { proxy } = network;
    const before = proxy.log.length;
    proxy.decide = ({ apiName }) =>
      apiName === wanted && proxy.log.length === before ? { at: 'request', act: 'keep' } : undefined;
    return { kept: () => proxy.strikes(before + 1) };
  }

  // Each of the two producers of a writer: the first transaction uses one, the second the other.
  for (const turn of [0, 1]) {
    it(`S42 refuses a Produce of transaction ${turn + 1} that arrives after a new writer has begun there`, async () => {
      const topic = await newTopic(log);
      const transactionalId = unique('writer');
      const zombie = network.log().writer({ transactionalId });
      await zombie.fence();
      if (turn === 1) expect(await zombie.transact(one(topic, 'before'))).toMatchObject({ outcome: 'committed' });
      const late = keepNext('Produce');
      const open = zombie.begin();
      const appended = open.append(one(topic, 'late')).then(
        () => 'appended',
        () => 'refused',
      );
      await late.kept();
      const successor = log.writer({ transactionalId });
      await successor.fence();
      if (turn === 1) expect(await successor.transact(one(topic, 'between'))).toMatchObject({ outcome: 'committed' });
      const next = successor.begin();
      await next.append(one(topic, 'next'));
      await network.proxy.release();
      expect(await next.commit()).toMatchObject({ outcome: 'committed' });
      expect(await appended).toBe('refused');
      expect(await open.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
      const expected = turn === 0 ? ['next'] : ['before', 'between', 'next'];
      expect(texts(await committedRecords(log, topic))).toEqual(expected);
      // Not even in the log: each record is followed by its marker, and there is nothing else.
      expect((await log.admin.offsets(topic))[0]!.high).toBe(2 * expected.length);
    });
  }

  it('S43 does not commit the next transaction of a producer with the EndTxn of the one before', async () => {
    const topic = await newTopic(log);
    const writer = network.log().writer({ transactionalId: unique('writer') });
    await writer.fence();
    const late = keepNext('EndTxn');
    const first = writer.transact(one(topic, 'first'));
    await late.kept();
    // Asked again when the answer did not come in time.
    expect(await first).toMatchObject({ outcome: 'committed' });
    expect(await writer.transact(one(topic, 'second'))).toMatchObject({ outcome: 'committed' });
    const third = writer.begin(); // the producer of the first again
    await third.append(one(topic, 'third'));
    await network.proxy.release();
    expect(await third.abort('own end')).toEqual({ outcome: 'aborted', cause: 'own end' });
    expect(await writer.transact(one(topic, 'fourth'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['first', 'second', 'fourth']);
  });

  it('S43 does not abort the next transaction of a producer with the EndTxn of the one before', async () => {
    const topic = await newTopic(log);
    const writer = network.log().writer({ transactionalId: unique('writer') });
    await writer.fence();
    const late = keepNext('EndTxn');
    const first = writer.begin();
    await first.append(one(topic, 'first'));
    const aborted = first.abort('own end');
    await late.kept();
    expect(await aborted).toEqual({ outcome: 'aborted', cause: 'own end' });
    expect(await writer.transact(one(topic, 'second'))).toMatchObject({ outcome: 'committed' });
    const third = writer.begin();
    await third.append(one(topic, 'third'));
    await network.proxy.release();
    await third.append(one(topic, 'fourth'));
    expect(await third.commit()).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['second', 'third', 'fourth']);
  });
});
