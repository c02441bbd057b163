import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  ProcessRunner,
  groupOf,
  parkedTopicOf,
  stateTopicOf,
  type Log,
  type LogRecord,
  type LogTransaction,
  type OutRecord,
} from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import {
  eventually,
  type Fault,
  kafkaCluster,
  type KafkaCluster,
  seededRandom,
  settledOffsets,
  uniqueName,
} from '@headwater/testing';
import { readAll } from '../bank.js';
import { Forward, anomalies, skipped, type Operation, type Read } from './history.testing.js';

const SECONDS = 300;
const PARTITIONS = 4;
const CLIENTS = 3;
const HIT = [
  'Produce',
  'EndTxn',
  'TxnOffsetCommit',
  'InitProducerId',
  'Fetch',
  'Heartbeat',
  'JoinGroup',
  'SyncGroup',
  'OffsetFetch',
];
const ACTS: readonly Fault['act'][] = ['drop', 'close', 'reset', 'delay', 'duplicate'];
const seed = randomInt(2 ** 31);

function append(lists: Map<string, number[]>, name: string, offset: number): void {
  const known = lists.get(name);
  if (known === undefined) lists.set(name, [offset]);
  else known.push(offset);
}

describe(`a log under random faults (seed ${seed})`, () => {
  let cluster: KafkaCluster;
  const random = seededRandom(seed);
  const list = uniqueName('list');
  const copy = uniqueName('copy');
  const name = uniqueName('copier');
  const topics = [list, copy, stateTopicOf(name), parkedTopicOf(name)];
  const operations: Operation[] = [];
  const reads: Read[] = [];
  const logs: Log[] = [];
  let over = false;

  beforeAll(async () => {
    cluster = await kafkaCluster({ brokers: 3 });
    await open().admin.ensureTopics(
      topics.map((topic) => ({
        topic,
        partitions: PARTITIONS,
        cleanupPolicy: topic.endsWith('.state') ? 'compact' : 'delete',
      })),
    );
  });
  afterAll(async () => {
    over = true;
    for (const log of logs) await log.close();
    await cluster?.stop();
  });

  function open(): Log {
    const log = kafkaLog({ brokers: cluster.brokers, connect: cluster.proxy.connect, requestTimeoutMs: 1_500 });
    logs.push(log);
    return log;
  }

  /** Writes until it is over, or until a successor with its transactional id has taken its place. */
  async function write(client: number, generation: number, isCurrent: () => boolean): Promise<void> {
    const choice = seededRandom(seed + 1_000 * client + generation);
    const writer = open().writer({ transactionalId: `${list}-client-${client}` });
    let fenced = false;
    for (let n = 0; !over; n++) {
      await delay(choice.below(150));
      if (!fenced) {
        if (!isCurrent()) return;
        fenced = await writer.fence().then(
          () => true,
          () => false,
        );
        if (!fenced) continue;
      }
      const values = Array.from({ length: 1 + choice.below(4) }, (_, i) => `${client}.${generation}.${n}.${i}`);
      const operation: Operation = { values, outcome: 'open', askedAt: Infinity };
      operations.push(operation);
      const end = await attempt(writer.begin(), values, operation, {
        commits: choice.chance(0.85),
        partition: choice.below(PARTITIONS),
      });
      fenced = end === 'ready';
    }
  }

  /** In two parts, so that there is something between them to be seen. */
  async function attempt(
    transaction: LogTransaction,
    values: readonly string[],
    operation: Operation,
    { commits, partition }: { commits: boolean; partition: number },
  ): Promise<'ready' | 'fence'> {
    const records = values.map((value, i): OutRecord => ({
      topic: list,
      partition: (partition + i) % PARTITIONS,
      key: null,
      value: Buffer.from(value),
    }));
    const sent = await transaction
      .append(records.slice(0, 1))
      .then(() => transaction.append(records.slice(1)))
      .then(
        () => true,
        () => false,
      );
    if (commits && sent) operation.askedAt = performance.now();
    const end = commits && sent ? await transaction.commit() : await transaction.abort();
    if (end.outcome === 'committed') operation.outcome = 'committed';
    // An abort is never a commit, whether its answer came or not.
    else operation.outcome = end.outcome === 'unknown' && commits && sent ? 'unknown' : 'failed';
    return end.outcome === 'unknown' || (end.outcome === 'aborted' && end.fenced === 'writer') ? 'fence' : 'ready';
  }

  /** Follows the list; now and then with a new reader, from where it was. */
  async function follow(forward: Forward, seen: Map<string, number[]>): Promise<void> {
    const choice = seededRandom(seed + 77);
    const next = new Map(Array.from({ length: PARTITIONS }, (_, partition) => [partition, 0]));
    while (!over) {
      const log = open();
      const reader = log.reader();
      for (const [partition, offset] of next) reader.seek(list, partition, offset);
      try {
        for (let polls = 20 + choice.below(200); polls > 0 && !over; polls--) {
          const batches = await reader.poll({ maxWaitMs: 50 });
          const at = performance.now();
          for (const { partition, records, nextOffset } of batches) {
            for (const record of records) take(record, at, forward, seen);
            next.set(partition, nextOffset);
          }
        }
      } catch {
        // The log was in trouble: a new reader goes on from there.
      }
      await log.close();
    }
  }

  function take(record: LogRecord, at: number, forward: Forward, seen: Map<string, number[]>): void {
    forward.take(record);
    const place = `${record.topic}/${record.partition}`;
    append(seen, place, record.offset);
    reads.push({ value: String(record.value), place: `${place}/${record.offset}`, at });
  }

  async function faults(replace: (client: number) => void): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    const count = (what: string) => counts.set(what, (counts.get(what) ?? 0) + 1);
    const endsAt = performance.now() + SECONDS * 1_000;
    while (performance.now() < endsAt) {
      await delay(500 + random.below(1_500));
      const kind = random.pick(['kill', 'pause', 'requests', 'requests', 'requests', 'move', 'replace'] as const);
      count(kind);
      const node = random.pick(cluster.nodes);
      if (kind === 'kill') {
        await node.kill();
        await delay(random.below(2_000));
        await cluster.heal(topics);
      } else if (kind === 'pause') {
        node.pause();
        await delay(500 + random.below(4_000));
        node.resume();
        await cluster.heal(topics);
      } else if (kind === 'requests') {
        const apis = [random.pick(HIT), random.pick(HIT)];
        const [act, at] = [random.pick(ACTS), random.pick(['request', 'response'] as const)];
        cluster.proxy.decide = ({ apiName }) =>
          apis.includes(apiName) && random.chance(0.4) ? { at, act, ...(act === 'delay' && { ms: 2_000 }) } : undefined;
        await delay(500 + random.below(3_000));
        cluster.proxy.decide = () => undefined;
      } else if (kind === 'move') await cluster.moveLeader(random.pick([list, copy]), random.below(PARTITIONS));
      else replace(random.below(CLIENTS));
    }
    return counts;
  }

  it(
    'S77 shows none of Jepsen’s anomalies over 300 seconds of kills, pauses, lost requests, leader moves and zombies',
    async () => {
      const generations = Array.from({ length: CLIENTS }, () => 0);
      const writing: Promise<void>[] = [];
      const start = (client: number) => {
        const generation = generations[client]!;
        writing.push(write(client, generation, () => generations[client] === generation));
      };
      const replace = (client: number) => {
        generations[client]!++;
        start(client);
      };
      const readers = [0, 1].map(() => ({ forward: new Forward(), seen: new Map<string, number[]>() }));
      const runner = new ProcessRunner(
        {
          name,
          inputs: [list],
          onRecord: ({ partition, value }, context) => context.send({ topic: copy, partition, key: null, value }),
        },
        {
          log: open(),
          instanceId: 'one',
          logger: { log: () => undefined, warn: () => undefined, error: () => undefined },
        },
      );
      for (let client = 0; client < CLIENTS; client++) start(client);
      const following = readers.map(({ forward, seen }) => follow(forward, seen));
      const counts = await faults(replace);
      await cluster.heal(topics);
      over = true;
      await Promise.all([...writing, ...following]);

      const log = open();
      const all = await readAll(log, list);
      const places = new Map<string, number[]>();
      for (const { topic, partition, offset } of all) append(places, `${topic}/${partition}`, offset);
      const now = performance.now();
      for (const { topic, partition, offset, value } of all)
        reads.push({ value: String(value), place: `${topic}/${partition}/${offset}`, at: now });
      expect(anomalies(operations, reads)).toEqual([]);
      for (const [n, { forward, seen }] of readers.entries()) {
        expect(forward.found).toEqual([]);
        expect(skipped(`reader ${n}`, seen, places)).toEqual([]);
      }
      const texts = (records: readonly LogRecord[]) =>
        records.map(({ partition, value }) => `${partition} ${String(value)}`);
      await eventually(async () => expect(texts(await readAll(log, copy))).toEqual(texts(all)), {
        timeoutMs: 60_000,
        intervalMs: 500,
      });
      await runner.stop();
      const inputs = [...places.keys()].map((place) => ({ topic: list, partition: Number(place.split('/')[1]) }));
      for (const { partition, next } of await log.admin.committedOffsets(groupOf(name), inputs))
        expect(next).toBeGreaterThan(places.get(`${list}/${partition}`)!.at(-1)!);
      for (const topic of topics) await settledOffsets(log, topic);

      const acknowledged = operations.filter(({ outcome }) => outcome === 'committed');
      expect(acknowledged.length).toBeGreaterThanOrEqual(1_000);
      for (const kind of ['kill', 'pause', 'requests', 'move', 'replace'])
        expect([kind, counts.get(kind) ?? 0]).not.toEqual([kind, 0]);
      expect(operations.filter(({ outcome }) => outcome === 'failed').length).toBeGreaterThan(50);
    },
    (SECONDS + 180) * 1_000,
  );
});
