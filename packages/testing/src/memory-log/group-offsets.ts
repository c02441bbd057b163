import type { PartitionOffset, TopicPartition } from '@headwater/core';

interface Written {
  readonly next: number;
  /** Its place in the log of offsets: of two commits the later written wins, whichever marker lands first. */
  readonly place: number;
}

/** The committed offsets of one group, and those that wait for their transaction to end. */
export class GroupOffsets {
  readonly #committed = new Map<string, Written>();
  readonly #pending = new Map<number, Map<string, Written>>();
  #places = 0;

  /** Writes offsets that become committed with the transaction. */
  prepare(transaction: number, offsets: readonly PartitionOffset[]): void {
    let pending = this.#pending.get(transaction);
    if (pending === undefined) this.#pending.set(transaction, (pending = new Map()));
    for (const { topic, partition, next } of offsets)
      pending.set(`${topic}/${partition}`, { next, place: ++this.#places });
  }

  mark(transaction: number, how: 'commit' | 'abort'): void {
    const pending = this.#pending.get(transaction);
    this.#pending.delete(transaction);
    if (pending === undefined || how === 'abort') return;
    for (const [key, written] of pending) {
      const before = this.#committed.get(key);
      if (before === undefined || before.place < written.place) this.#committed.set(key, written);
    }
  }

  /** -1: none committed. Undefined while an offset of one of the partitions waits for its transaction. */
  read(partitions: readonly TopicPartition[]): PartitionOffset[] | undefined {
    for (const pending of this.#pending.values())
      if (partitions.some(({ topic, partition }) => pending.has(`${topic}/${partition}`))) return undefined;
    return partitions.map(({ topic, partition }) => ({ topic, partition, next: this.committed({ topic, partition }) }));
  }

  /** What is committed now, whatever is pending. -1: none. */
  committed({ topic, partition }: TopicPartition): number {
    return this.#committed.get(`${topic}/${partition}`)?.next ?? -1;
  }

  /** Of which something is committed, by name. */
  topics(): readonly string[] {
    return [...new Set([...this.#committed.keys()].map(topicOf))].sort();
  }

  /** Forgets a topic that is deleted. */
  forget(topic: string): void {
    for (const of of [this.#committed, ...this.#pending.values()])
      for (const key of of.keys()) if (topicOf(key) === topic) of.delete(key);
  }
}

const topicOf = (key: string): string => key.slice(0, key.lastIndexOf('/'));
