import type {
  LogAdmin,
  OpenTransaction,
  PartitionOffset,
  TopicDifference,
  TopicPartition,
  TopicSpec,
} from '@headwater/core';
import type { Connection } from './connection.js';
import type { MemoryCluster } from './memory-cluster.js';
import { topicsDiffer } from './refusals.js';

export class MemoryAdmin implements LogAdmin {
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;

  constructor(cluster: MemoryCluster, connection: Connection) {
    this.#cluster = cluster;
    this.#connection = connection;
  }

  ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    return this.#ask(() => {
      for (const spec of specs) if (this.#cluster.topics.find(spec.topic) === undefined) this.#create(spec);
      const differences = this.#cluster.topics.differences(specs);
      if (differences.length > 0) throw topicsDiffer(differences);
    });
  }

  abilities(): Promise<{ readonly endsByEpoch: boolean }> {
    return this.#ask(() => ({ endsByEpoch: true }));
  }

  partitionCounts(topics: readonly string[]): Promise<ReadonlyMap<string, number>> {
    return this.#ask(() => new Map(this.#found(topics).map(([name, topic]) => [name, topic.partitions.length])));
  }

  offsets(topic: string): Promise<readonly (TopicPartition & { start: number; lastStable: number; high: number })[]> {
    return this.#ask(() =>
      this.#cluster.topics
        .get(topic)
        .partitions.map(({ partition, start, lastStable, high }) => ({ topic, partition, start, lastStable, high })),
    );
  }

  offsetsForTime(topic: string, timestampMs: number): Promise<readonly PartitionOffset[]> {
    return this.#ask(() =>
      this.#cluster.topics
        .get(topic)
        .partitions.map((log) => ({ topic, partition: log.partition, next: log.firstAt(timestampMs) })),
    );
  }

  committedOffsets(groupId: string, partitions: readonly TopicPartition[]): Promise<readonly PartitionOffset[]> {
    return this.#connection.ask({ request: 'read-offsets', groupId }, this.#cluster.logChanged, () =>
      this.#cluster.offsetsOf(groupId).read(partitions),
    );
  }

  lag(
    groupId: string,
    topics?: readonly string[],
  ): Promise<readonly (TopicPartition & { committed: number; lastStable: number; lag: number })[]> {
    return this.#ask(() => {
      const offsets = this.#cluster.offsetsOf(groupId);
      return (topics ?? offsets.topics()).flatMap((topic) =>
        this.#cluster.topics.get(topic).partitions.map(({ partition, start, lastStable }) => {
          const committed = offsets.committed({ topic, partition });
          const lag = Math.max(0, lastStable - Math.max(committed, start));
          return { topic, partition, committed, lastStable, lag };
        }),
      );
    });
  }

  diffTopics(specs: readonly TopicSpec[]): Promise<readonly TopicDifference[]> {
    return this.#ask(() => this.#cluster.topics.differences(specs));
  }

  cleanupPolicy(topic: string): Promise<string | undefined> {
    return this.#ask(() => this.#cluster.topics.find(topic)?.settings.get('cleanup.policy'));
  }

  applyTopics(specs: readonly TopicSpec[]): Promise<readonly TopicDifference[]> {
    return this.#ask(() => {
      const { topics } = this.#cluster;
      const differences = topics.differences(specs);
      const fixed = differences.filter(({ setting }) => FIXED.has(setting));
      if (fixed.length > 0) throw topicsDiffer(fixed);
      for (const spec of specs) if (topics.find(spec.topic) === undefined) this.#create(spec);
      for (const { topic, setting, wanted, found } of differences)
        if (found !== undefined) topics.get(topic).settings.set(setting, wanted);
      return differences;
    });
  }

  topicIds(topics: readonly string[]): Promise<ReadonlyMap<string, string>> {
    return this.#ask(() => new Map(this.#found(topics).map(([name, topic]) => [name, topic.id])));
  }

  deleteTopics(topics: readonly string[]): Promise<void> {
    return this.#ask(() => {
      for (const topic of topics) this.#cluster.deleteTopic(topic);
    });
  }

  openTransactions(topic: string, olderThanMs: number): Promise<readonly OpenTransaction[]> {
    return this.#ask(() => {
      const now = this.#connection.clock.now();
      return this.#cluster.topics.get(topic).partitions.flatMap((log) =>
        this.#cluster
          .openOn(log)
          .filter(({ transaction }) => now - transaction.startedAtMs >= olderThanMs)
          .map(({ transaction, firstOffset }) => ({
            topic,
            partition: log.partition,
            producerId: BigInt(transaction.number),
            epoch: transaction.epoch,
            transactionalId: transaction.transactionalId,
            startedAtMs: transaction.startedAtMs,
            firstOffset,
            coordinatorEpoch: -1,
          })),
      );
    });
  }

  abortOpenTransaction({ topic, partition, producerId, transactionalId }: OpenTransaction): Promise<void> {
    return this.#ask(() => {
      this.#cluster.abortOpen({ topic, partition }, Number(producerId), transactionalId);
    });
  }

  #create(spec: TopicSpec): void {
    this.#cluster.topics.create(spec);
    this.#cluster.logChanged.ring();
  }

  #found(topics: readonly string[]) {
    return topics.flatMap((name) => {
      const topic = this.#cluster.topics.find(name);
      return topic === undefined ? [] : [[name, topic] as const];
    });
  }

  #ask<T>(serve: () => T): Promise<T> {
    return this.#connection.request({ request: 'admin' }, serve);
  }
}

/** What cannot be changed without losing order, or not by settings. */
const FIXED = new Set(['partitions', 'replication.factor']);
