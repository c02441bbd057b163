import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogWriter, OutRecord } from '@headwater/core';
import { KAFKA_VERSIONS, eventually, kafkaCluster, type Decide, type KafkaCluster } from '@headwater/testing';
import { describeLog } from '@headwater/testing/log-suite';
import { committedRecords, newTopic, texts, unique } from './broker.testing.js';
import { kafkaLog } from './kafka-log.js';
import { kafkaUnderTest } from './kafka-under-test.testing.js';

describe.each([
  { version: KAFKA_VERSIONS.oldest, transactions: 1 },
  { version: KAFKA_VERSIONS.newest, transactions: 2 },
])('Kafka $version', ({ version, transactions }) => {
  let cluster: KafkaCluster;
  const kafka = kafkaUnderTest(() => cluster.brokers);
  beforeAll(async () => {
    cluster = await kafkaCluster({ brokers: 1, version });
  });
  afterAll(async () => {
    await kafka.close();
    await cluster?.stop();
  });

  describeLog('kafkaLog', kafka);

  describe('a writer behind a faulty network', () => {
    let log: Log;
    let faulty: Log;
    let writer: LogWriter;
    let topic: string;
    beforeAll(() => {
      log = kafkaLog({ brokers: cluster.brokers });
    });
    afterAll(() => log.close());

    const one = (value: string): OutRecord[] => [{ topic, partition: 0, key: null, value: Buffer.from(value) }];
    const committed = async () => texts(await committedRecords(log, topic));
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    const upTo = (next: number) => ({ membership, offsets: [{ topic, partition: 0, next }] });
    const truth = () => log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }]);

    /** Runs on a fenced writer of its own, whose requests meet the rule. */
    async function behind(decide: Decide, scenario: () => Promise<void>): Promise<void> {
      topic = await newTopic(log);
      faulty = kafkaLog({ brokers: cluster.brokers, connect: cluster.proxy.connect, requestTimeoutMs: 1_000 });
      writer = faulty.writer({ transactionalId: unique('writer') });
      await writer.fence();
      cluster.proxy.decide = decide;
      try {
        await scenario();
      } finally {
        cluster.proxy.decide = () => undefined;
        await cluster.proxy.release();
        await faulty.close();
      }
    }

    function first(apiName: string, fault: NonNullable<ReturnType<Decide>>): Decide {
      let struck = false;
      return (request) => {
        if (struck || request.apiName !== apiName) return undefined;
        struck = true;
        return fault;
      };
    }

    for (const act of ['drop', 'close'] as const) {
      it(`S39 doubles nothing and loses nothing when a Produce response meets ${act}`, () =>
        behind(first('Produce', { at: 'response', act }), async () => {
          expect(await writer.transact(one('a'))).toMatchObject({ outcome: 'committed' });
          expect(await writer.transact(one('b'))).toMatchObject({ outcome: 'committed' });
          expect(await committed()).toEqual(['a', 'b']);
        }));

      for (const at of ['response', 'request'] as const) {
        const landed = at === 'response';
        const id = landed ? 'S40' : 'S41';
        // Without transaction.version 2 the epoch stays, so an answer to a repetition could be that of another transaction.
        const outcome = transactions === 2 ? 'committed' : 'unknown';
        it(`${id} is ${outcome} when one EndTxn ${at} meets ${act}; after fence() the offsets tell, and nothing is doubled`, () =>
          behind(first('EndTxn', { at, act }), async () => {
            expect(await writer.transact(one('a'), upTo(1))).toMatchObject({ outcome });
            if (outcome === 'unknown') {
              expect(await writer.transact(one('refused'), upTo(9))).toMatchObject({ fenced: 'writer' });
              await writer.fence();
              const [of] = await truth();
              expect(of!.next).toBe(landed ? 1 : -1);
              if (!landed) expect(await writer.transact(one('a'), upTo(1))).toMatchObject({ outcome: 'committed' });
            }
            expect(await truth()).toEqual(upTo(1).offsets);
            expect(await writer.transact(one('b'), upTo(2))).toMatchObject({ outcome: 'committed' });
            expect(await committed()).toEqual(['a', 'b']);
          }));
      }
    }

    it('S43 keeps the outcome of the next transaction its own when an EndTxn arrives in its middle', () => {
      let fenced = false;
      return behind(
        ({ apiName }) => (apiName === 'EndTxn' && !fenced ? { at: 'request', act: 'keep' } : undefined),
        async () => {
          expect(await writer.transact(one('late'))).toMatchObject({ outcome: 'unknown' });
          fenced = true;
          await writer.fence();
          const next = writer.begin();
          await next.append(one('next'));
          await cluster.proxy.release();
          // Neither committed nor aborted by the late request.
          const [offsets] = await log.admin.offsets(topic);
          expect(offsets!.high).toBeGreaterThan(offsets!.lastStable);
          expect(await next.abort()).toMatchObject({ outcome: 'aborted' });
          await eventually(async () => expect(await committed()).toEqual([]));
        },
      );
    });
  });
});
