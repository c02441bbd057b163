import type {
  LogAdmin,
  OpenTransaction,
  PartitionOffset,
  TopicDifference,
  TopicPartition,
  TopicSpec,
} from '@headwater/core';
import type { Admin, Kafka } from 'kafkajs';
import { KafkaError, refused } from './kafka.errors.js';
import { abortOpenTransaction, openTransactions } from './open-transactions.js';
import { describeTopics } from './requests/admin.js';
import { GROUP } from './requests/call.js';
import { apiVersions } from './requests/cluster.js';
import { EARLIEST, LATEST, listOffsets } from './requests/fetch.js';
import { offsetFetch } from './requests/group.js';
import { firstAtOrAfter } from './offsets-for-time.js';
import { KafkaReader } from './reader.js';
import { KafkaTopics } from './topics.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

const PATIENCE_MS = 30_000;
/** A predecessor's open transaction may hold the offsets until it times out at the broker. */
const STABLE_OFFSETS_PATIENCE_MS = 60_000;
const CLEANUP_POLICY = 'cleanup.policy';
const SEARCH_LIMITS = { maxBytes: 4 << 20 };

export class KafkaAdmin implements LogAdmin {
  readonly #wire: Wire;
  readonly #kafka: Kafka;
  readonly #topics: KafkaTopics;
  #admin: Promise<Admin> | undefined;

  constructor(wire: Wire, kafka: Kafka) {
    this.#wire = wire;
    this.#kafka = kafka;
    this.#topics = new KafkaTopics(wire, () => this.#connected());
  }

  async ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    if (specs.length > 0) await this.#topics.ensure(specs);
  }

  async diffTopics(specs: readonly TopicSpec[]): Promise<TopicDifference[]> {
    return this.#topics.diff(specs);
  }

  async cleanupPolicy(topic: string): Promise<string | undefined> {
    const [found] = await this.#wire.ask(describeTopics([{ topic, names: [CLEANUP_POLICY] }]));
    return found?.error === 0 ? found.settings.get(CLEANUP_POLICY) : undefined;
  }

  async applyTopics(specs: readonly TopicSpec[]): Promise<TopicDifference[]> {
    return this.#topics.apply(specs);
  }

  async topicIds(topics: readonly string[]): Promise<ReadonlyMap<string, string>> {
    return this.#topics.ids(topics);
  }

  async deleteTopics(topics: readonly string[]): Promise<void> {
    await this.#topics.delete(topics);
  }

  async abilities(): Promise<{ readonly endsByEpoch: boolean }> {
    const { transactionVersion } = await this.#wire.ask(apiVersions());
    return { endsByEpoch: transactionVersion >= 2 };
  }

  async partitionCounts(topics: readonly string[]): Promise<ReadonlyMap<string, number>> {
    if (topics.length > 0) await this.#wire.refresh(topics);
    const counts = new Map<string, number>();
    for (const topic of topics) {
      const count = this.#wire.knownLeaders(topic)?.length ?? 0;
      if (count > 0) counts.set(topic, count);
    }
    return counts;
  }

  async offsets(topic: string): Promise<(TopicPartition & { start: number; lastStable: number; high: number })[]> {
    return this.#retried('ListOffsets', topic, async () => {
      // The end that may not be passed is asked for first: the log only grows, so lastStable never exceeds high.
      const start = await this.#list(topic, EARLIEST, 'all');
      const lastStable = await this.#list(topic, LATEST, 'committed');
      const high = await this.#list(topic, LATEST, 'all');
      return start.map(({ partition, offset }) => ({
        topic,
        partition,
        start: offset,
        lastStable: lastStable[partition]!.offset,
        high: high[partition]!.offset,
      }));
    });
  }

  async offsetsForTime(topic: string, timestampMs: number): Promise<readonly PartitionOffset[]> {
    const partitions = await this.#retried('ListOffsets', topic, async () => {
      // The end first: a record that comes in between is then after it, not before.
      const end = await this.#list(topic, LATEST, 'committed');
      // Negative times are Kafka's names for places of the log; nothing is older than its start.
      const from = await this.#list(topic, timestampMs < 0 ? EARLIEST : timestampMs, 'committed');
      return from.map(({ partition, offset }) => {
        const { offset: last } = end[partition]!;
        return { topic, partition, next: offset < 0 ? last : offset, end: last };
      });
    });
    const reader = new KafkaReader(this.#wire, SEARCH_LIMITS);
    try {
      return await firstAtOrAfter(reader, timestampMs, partitions);
    } finally {
      await reader.close();
    }
  }

  async lag(
    groupId: string,
    topics?: readonly string[],
  ): Promise<(TopicPartition & { committed: number; lastStable: number; lag: number })[]> {
    // Committed first: what is committed meanwhile only makes the lag look larger, never negative.
    const committed = await this.#groupOffsets(groupId, 'all', 'committed');
    const asked = topics ?? (await this.#existing(committed.map(({ topic }) => topic)));
    const ends = (await Promise.all(asked.map((topic) => this.offsets(topic)))).flat();
    return ends.map(({ topic, partition, start, lastStable }) => {
      const next = committed.find((of) => of.topic === topic && of.partition === partition)?.next ?? -1;
      return { topic, partition, committed: next, lastStable, lag: Math.max(0, lastStable - Math.max(next, start)) };
    });
  }

  async committedOffsets(groupId: string, partitions: readonly TopicPartition[]): Promise<readonly PartitionOffset[]> {
    return partitions.length === 0 ? [] : this.#groupOffsets(groupId, partitions, 'stable');
  }

  async openTransactions(topic: string, olderThanMs: number): Promise<readonly OpenTransaction[]> {
    return this.#retried('DescribeProducers', topic, () => {
      return openTransactions(this.#wire, topic, olderThanMs, Date.now());
    });
  }

  async abortOpenTransaction(open: OpenTransaction): Promise<void> {
    await this.#retried('WriteTxnMarkers', open.topic, () => abortOpenTransaction(this.#wire, open));
  }

  async close(): Promise<void> {
    const admin = this.#admin;
    this.#admin = undefined;
    await admin?.then(
      (connected) => connected.disconnect(),
      () => undefined,
    );
  }

  async #groupOffsets(
    groupId: string,
    partitions: readonly TopicPartition[] | 'all',
    which: 'stable' | 'committed',
  ): Promise<readonly PartitionOffset[]> {
    const lane = this.#wire.lane();
    try {
      const call = offsetFetch(groupId, partitions, which);
      const patience = { deadlineMs: STABLE_OFFSETS_PATIENCE_MS };
      const answer = await this.#wire.coordinated(GROUP, groupId, call, lane, patience);
      if (answer.error !== 0) throw refused('OffsetFetch', answer.error, { groupId });
      return answer.offsets;
    } finally {
      await this.#wire.release(lane);
    }
  }

  /** By name. The broker keeps the offsets of a deleted topic for a while. */
  async #existing(topics: readonly string[]): Promise<string[]> {
    return [...(await this.partitionCounts([...new Set(topics)])).keys()].sort();
  }

  /** Repeats what may be done twice, until the leaders have settled. */
  async #retried<T>(what: string, topic: string, attempt: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      let last: unknown;
      try {
        return await attempt();
      } catch (error) {
        if (error instanceof KafkaError && !error.retryable) throw error;
        last = error;
      }
      this.#wire.assertOpen();
      if (performance.now() > deadline) throw unreachable(what, topic, last);
      await wait(100, this.#wire.closing.signal);
      await this.#wire.tryRefresh([topic]);
    }
  }

  /** One offset per partition, in their order. */
  async #list(
    topic: string,
    timestamp: number,
    isolation: 'committed' | 'all',
  ): Promise<{ partition: number; offset: number }[]> {
    const count = (await this.#wire.leaders(topic))?.length ?? 0;
    if (count === 0) {
      throw new KafkaError('LOG_TOPIC_MISSING', `topic ${topic} does not exist. Create it with admin.ensureTopics().`, {
        facts: { topic },
      });
    }
    const partitions = Array.from({ length: count }, (_, partition) => ({ topic, partition }));
    const { led, leaderless } = await this.#wire.byLeader(partitions);
    if (leaderless.length > 0) throw unreachable('ListOffsets', `${topic}-${leaderless[0]!.partition}`, 'no leader');
    const answers = await Promise.all(
      [...led].map(([nodeId, of]) => this.#wire.send(nodeId, listOffsets(of, timestamp, isolation))),
    );
    const offsets: { partition: number; offset: number }[] = [];
    for (const { partition, error, offset } of answers.flat()) {
      if (error !== 0) throw refused('ListOffsets', error, { topic, partition });
      offsets[partition] = { partition, offset };
    }
    return offsets;
  }

  /** kafkajs's admin, connected on first use. */
  #connected(): Promise<Admin> {
    this.#wire.assertOpen();
    this.#admin ??= (async () => {
      const admin = this.#kafka.admin();
      await admin.connect();
      return admin;
    })().catch((error: unknown) => {
      this.#admin = undefined;
      throw error;
    });
    return this.#admin;
  }
}
