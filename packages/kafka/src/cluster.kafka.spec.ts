import { setInterval, setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { errorCode } from '@headwater/core';
import { eventually, kafkaCluster, type KafkaCluster } from '@headwater/testing';
import { committedRecords, newTopic, texts, unique } from './broker.testing.js';
import { ClusterLoad } from './cluster-load.testing.js';

const STORM_MS = 20_000;
const LATER = { timeoutMs: 60_000 };

describe('writer, reader and processor on three brokers', () => {
  let cluster: KafkaCluster;
  beforeAll(async () => {
    cluster = await kafkaCluster({ brokers: 3 });
  });
  afterAll(() => cluster?.stop());

  it('S51 recover from the death of the transaction coordinator, in the middle of a commit', () =>
    ClusterLoad.under(cluster, async (load) => {
      const [first, ...others] = load.transactionalIds;
      const victim = await cluster.transactionCoordinator(first!);
      for (const id of others) await cluster.moveTransactionCoordinator(id, victim);
      await load.progress();
      const ends = { writer: 0, processor: 0 };
      let dead: Promise<void> | undefined;
      cluster.proxy.decide = ({ apiName, clientId, target, frame }) => {
        if (apiName !== 'EndTxn' || clientId !== load.clientId || dead) return undefined;
        expect(cluster.nodes[target]!.nodeId).toBe(victim);
        ends[frame.includes(load.feederId) ? 'writer' : 'processor']++;
        if (ends.writer < 3 || ends.processor < 3) return undefined;
        dead = cluster.node(victim).kill();
        return { at: 'response', act: 'drop', onStrike: () => dead };
      };
      await eventually(() => expect(dead).toBeDefined(), LATER);
      await dead;
      for (const id of load.transactionalIds) expect(await cluster.transactionCoordinator(id)).not.toBe(victim);
    }));

  it.each(['request', 'response'] as const)(
    'S52 recover from the death of the group coordinator at the %s of TxnOffsetCommit, offsets and outputs agreeing',
    (at) =>
      ClusterLoad.under(cluster, async ({ log, groupId }) => {
        const victim = await cluster.groupCoordinator(groupId);
        const topic = await newTopic(log);
        // The only transaction of a group of its own there: no later one makes good what is missing.
        const lone = unique('lone');
        await cluster.moveGroupCoordinator(lone, victim);
        const writer = log.writer({ transactionalId: lone, transactionTimeoutMs: 60_000 });
        await writer.fence();
        let struck = false;
        cluster.proxy.decide = ({ apiName, target, frame }) => {
          if (apiName !== 'TxnOffsetCommit' || !frame.includes(lone) || struck) return undefined;
          expect(cluster.nodes[target]!.nodeId).toBe(victim);
          struck = true;
          return { at, act: 'drop', onStrike: () => cluster.node(victim).kill() };
        };
        const offsets = [{ topic, partition: 0, next: 7 }];
        const membership = { groupId: lone, memberId: '', generation: -1 };
        const record = { topic, partition: 0, key: null, value: Buffer.from('once') };
        expect(await writer.transact([record], { membership, offsets })).toMatchObject({ outcome: 'committed' });
        expect(struck).toBe(true);
        expect(await log.admin.committedOffsets(lone, offsets)).toEqual(offsets);
        expect(texts(await committedRecords(log, topic))).toEqual(['once']);
        for (const group of [lone, groupId]) expect(await cluster.groupCoordinator(group)).not.toBe(victim);
      }),
  );

  it('S53 go on while leaders move every 2 seconds', () =>
    ClusterLoad.under(cluster, async (load) => {
      const leaders = () =>
        Promise.all(
          [load.input, load.output].map((topic) => Promise.all([0, 1, 2].map((of) => cluster.leaderOf(topic, of)))),
        );
      let looked = 0;
      cluster.proxy.decide = ({ apiName, clientId }) => {
        if (apiName === 'Metadata' && clientId === load.readerClientId) looked++;
        return undefined;
      };
      let moves = 0;
      for await (const _ of setInterval(2_000)) {
        const [before, lookedBefore] = [await leaders(), looked];
        const partition = moves++ % 3;
        await Promise.all([load.input, load.output].map((topic) => cluster.moveLeader(topic, partition)));
        expect(await leaders()).not.toEqual(before);
        // A replica that leads no more would go on answering.
        await eventually(() => expect(looked).toBeGreaterThan(lookedBefore), LATER);
        if (moves === 5) break;
      }
    }));

  it('S54 double nothing on healthy leaders while the answers of one come too late', () =>
    ClusterLoad.under(cluster, async (load) => {
      const slow = (await cluster.leaderOf(load.input, 0)) - 1;
      let late = 0;
      cluster.proxy.decide = ({ apiName, clientId, target }) => {
        if (apiName !== 'Produce' || clientId !== load.clientId || target !== slow || late >= 4) return undefined;
        late++;
        // Past the client's time-out: it gives the connection up and sends again, and the broker has both.
        return { at: late % 2 === 0 ? 'response' : 'request', act: 'delay', ms: 2_500 };
      };
      const struck = cluster.proxy.log.length;
      await cluster.proxy.strikes(struck + 4);
    }));

  it('S58 try until the time limit, then end and repeat transactions, while too few replicas are in sync, and lose nothing', () =>
    ClusterLoad.under(
      cluster,
      async (load) => {
        const told = load.ends.length;
        await cluster.node(await cluster.leaderOf(load.output, 0)).kill();
        await eventually(async () => expect(await cluster.leaderOf(load.output, 0)).toBeGreaterThan(0), LATER);
        // The storm itself: longer than a transaction may take.
        await delay(STORM_MS);
        const causes = load.ends
          .slice(told)
          .flatMap((end) => (end.outcome === 'committed' ? [] : [errorCode(end.cause)]));
        expect(causes).not.toEqual([]);
        // Nobody gave up at the first refusal.
        expect(causes).not.toContain('KAFKA_REFUSED');
        await cluster.heal(load.topics);
      },
      { topicConfig: { 'min.insync.replicas': '3' }, stormMs: STORM_MS },
    ));
});
