import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogWriter, OutRecord } from '@headwater/core';
import { KAFKA_VERSIONS, eventually, kafkaCluster, type Decide, type KafkaCluster } from '@headwater/testing';
import { describeLog } from '@headwater/testing/log-suite';
import { committedRecords, newTopic, texts, unique } from './broker.testing.js';
import { kafkaLog } from './kafka-log.js';
import { kafkaUnderTest } from './kafka-under-test.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { flexible, readError } from './requests/call.js';
import { Wire } from './wire.js';

const UPGRADE = 1;
const SAFE_DOWNGRADE = 2;

/** As `kafka-features.sh upgrade|downgrade --feature transaction.version=…` does on a running cluster. */
async function setTransactionVersion(brokers: readonly string[], level: number, how: number): Promise<void> {
  const wire = new Wire(kafkajsClient({ brokers, clientId: 'features' }).connections, {
    brokers,
    requestTimeoutMs: 10_000,
  });
  const updateFeatures = flexible(
    57,
    'UpdateFeatures',
    1,
    (body) => {
      body.int32(10_000);
      body.compactArray([level], (wanted) => body.compactString('transaction.version').int16(wanted).int8(how).tags());
      body.bool(false).tags();
    },
    readError,
  );
  expect(await wire.ask(updateFeatures)).toEqual({ error: 0 });
  await wire.close();
}

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

    // The oldest knows no other version.
    if (transactions === 2)
      it('goes on while the cluster changes transaction.version, by the version of its epoch until it is fenced', () => {
        const ends: number[] = [];
        const noted: Decide = ({ apiName, version }) => {
          if (apiName === 'EndTxn') ends.push(version);
          return undefined;
        };
        const changed = async (level: number, how: number) => {
          await setTransactionVersion(cluster.brokers, level, how);
          await eventually(async () => expect((await log.admin.abilities()).endsByEpoch).toBe(level === 2));
        };
        return behind(noted, async () => {
          const transacts = async (value: string) =>
            expect(await writer.transact(one(value))).toMatchObject({ outcome: 'committed' });
          await transacts('v2');
          await changed(1, SAFE_DOWNGRADE);
          await transacts('still v2');
          await writer.fence();
          await transacts('v1');
          expect(await writer.begin().abort()).toMatchObject({ outcome: 'aborted' });
          await changed(2, UPGRADE);
          await transacts('still v1');
          await writer.fence();
          await transacts('v2 again');
          expect(ends).toEqual([5, 5, 3, 3, 5]);
          expect(await committed()).toEqual(['v2', 'still v2', 'v1', 'still v1', 'v2 again']);
        });
      });

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
