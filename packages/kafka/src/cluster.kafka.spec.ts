import { setInterval, setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { errorCode } from '@headwater/core';
import { eventually, kafkaCluster, type KafkaCluster } from '@headwater/testing';
import { committedRecords, newTopic, texts, unique } from './broker.testing.js';
import { ClusterLoad } from './cluster-load.testing.js';
import { kafkaLog } from './kafka-log.js';

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

  it('S78 commit nothing that a broker left out and did not tell of', () =>
    ClusterLoad.under(cluster, async (load) => {
      // Requests with two partitions of a topic.
      for (const topic of [load.input, load.output])
        await cluster.moveLeader(topic, 1, await cluster.leaderOf(topic, 0));
      const left = new Map([load.input, load.output].map((topic) => [topic, 0]));
      cluster.proxy.decide = ({ apiName, clientId, frame }) => {
        if (apiName !== 'Produce' || clientId !== load.clientId) return undefined;
        for (const [topic, times] of left) {
          const less = times < 3 ? withoutLastPartition(frame, topic) : undefined;
          if (less === undefined) continue;
          left.set(topic, times + 1);
          return { at: 'request', act: 'rewrite', rewrite: () => less };
        }
        return undefined;
      };
      await eventually(() => expect([...left.values()]).toEqual([3, 3]), LATER);
    }));

  it('S78 send to a broker that has answered what has moved onto it since', async () => {
    const clientId = unique('mover');
    const log = kafkaLog({
      brokers: cluster.brokers,
      connect: cluster.proxy.connect,
      clientId,
      requestTimeoutMs: 60_000,
    });
    try {
      const topic = await newTopic(log, 2);
      const answering = await cluster.leaderOf(topic, 0);
      const leaving = await cluster.moveLeader(topic, 1, (answering % 3) + 1);
      const writer = log.writer({ transactionalId: unique('mover'), transactionTimeoutMs: 60_000 });
      await writer.fence();
      const asked: number[] = [];
      let answered: () => void = () => undefined;
      const answer = new Promise<void>((resolve) => (answered = resolve));
      cluster.proxy.decide = ({ apiName, clientId: of, target }) => {
        if (apiName !== 'Produce' || of !== clientId) return undefined;
        const nodeId = cluster.nodes[target]!.nodeId;
        asked.push(nodeId);
        if (asked.length > 2) return undefined;
        if (nodeId === answering) return { at: 'response', act: 'delay', onStrike: answered };
        return {
          at: 'request',
          act: 'delay',
          onStrike: () => answer.then(() => cluster.moveLeader(topic, 1, answering)),
        };
      };
      const records = ['stays', 'moves'].map((text, partition) => ({
        topic,
        partition,
        key: null,
        value: Buffer.from(text),
      }));
      expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
      expect(new Set(asked.slice(0, 2))).toEqual(new Set([answering, leaving]));
      expect(asked.slice(2)).toContain(answering);
      const found = await committedRecords(log, topic);
      expect(texts(found.filter((of) => of.partition === 0))).toEqual(['stays']);
      expect(texts(found.filter((of) => of.partition === 1))).toEqual(['moves']);
    } finally {
      cluster.proxy.decide = () => undefined;
      await log.close();
    }
  });

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

/** A request to produce without the last of the partitions of a topic; undefined when it holds less than two of them. */
function withoutLastPartition(frame: Buffer, topic: string): Buffer | undefined {
  // With its length before it: the entries of a state name topics, too.
  const name = Buffer.from(`${String.fromCharCode(topic.length + 1)}${topic}`);
  const named = frame.indexOf(name);
  if (named < 0) return undefined;
  const counted = named + name.length;
  // Below 127 partitions: the count and one is a single byte.
  const count = frame[counted]! - 1;
  if (count < 2) return undefined;
  let [begin, end] = [0, counted + 1];
  for (let n = 0; n < count; n++) {
    begin = end;
    let bytes = 0;
    let at = begin + 4;
    for (let shift = 0; ; shift += 7) {
      bytes += (frame[at]! & 0x7f) << shift;
      if (frame[at++]! < 0x80) break;
    }
    // A length and one, the batch, no tags.
    end = at + bytes - 1 + 1;
  }
  const less = Buffer.concat([frame.subarray(0, begin), frame.subarray(end)]);
  less.writeInt32BE(less.length - 4);
  less[counted] = count;
  return less;
}
