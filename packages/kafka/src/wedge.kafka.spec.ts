import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogWriter } from '@headwater/core';
import { committedRecords, lossyNetwork, newTopic, testLog, texts, unique } from './broker.testing.js';

const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;

describe('a client whose transactions are reset at their end', () => {
  let log: Log;
  let network: Awaited<ReturnType<typeof lossyNetwork>>;
  let topic: string;
  let writer: LogWriter;
  beforeAll(async () => {
    log = testLog();
    network = await lossyNetwork();
    topic = await newTopic(log);
    writer = network.log().writer({ transactionalId: unique('writer'), transactionTimeoutMs: 4_000 });
    await writer.fence();
  });
  afterAll(async () => {
    await network.close();
    await log.close();
  });

  const transact = (value: string) => writer.transact([{ topic, partition: 0, key: null, value: Buffer.from(value) }]);

  it('S79 goes on within 5 s after each of 100 resets at EndTxn, and its sockets do not grow', async () => {
    expect(await transact('before')).toMatchObject({ outcome: 'committed' });
    const before = sockets();
    const expected = ['before'];
    for (let round = 0; round < 100; round++) {
      let struck = false;
      network.proxy.decide = ({ apiName }) => {
        if (apiName !== 'EndTxn' || struck) return undefined;
        struck = true;
        return { at: round % 2 === 0 ? 'request' : 'response', act: 'reset' };
      };
      const startedAt = performance.now();
      const transaction = writer.begin();
      await transaction.append([{ topic, partition: 0, key: null, value: Buffer.from(`${round}`) }]);
      // Every fourth one is meant to abort.
      const outcome = round % 4 === 3 ? await transaction.abort() : await transaction.commit();
      expect(outcome).toMatchObject({ outcome: round % 4 === 3 ? 'aborted' : 'committed' });
      expect(outcome).not.toHaveProperty('fenced');
      expect(struck).toBe(true);
      if (outcome.outcome === 'committed') expected.push(`${round}`);
      expect(performance.now() - startedAt).toBeLessThan(5_000);
    }
    expect(sockets()).toBeLessThanOrEqual(before);
    expect(texts(await committedRecords(log, topic))).toEqual(expected);
  });

  it('S79 goes on after an end that stayed unknown as soon as it is fenced', async () => {
    network.proxy.decide = ({ apiName }) => (apiName === 'EndTxn' ? { at: 'response', act: 'reset' } : undefined);
    const before = sockets();
    expect(await transact('in doubt')).toMatchObject({ outcome: 'unknown' });
    const startedAt = performance.now();
    network.proxy.decide = () => undefined;
    await writer.fence();
    expect(await transact('after')).toMatchObject({ outcome: 'committed' });
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(sockets()).toBeLessThanOrEqual(before);
    expect(texts(await committedRecords(log, topic)).slice(-2)).toEqual(['in doubt', 'after']);
  });
});
