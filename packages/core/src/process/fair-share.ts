import type { FetchedBatch, LogReader, PartitionOffset, TopicPartition } from '../log/log.js';
import type { Task } from './task.js';

/** Fetched records that may wait for handlers, over all tasks; what comes with the fetch that exceeds it is kept too. */
const MOST_QUEUED = 6_000;
const LEAST_SHARE = 500;
/** The same in bytes of keys and values. */
const MOST_QUEUED_BYTES = 16_000_000;
const LEAST_SHARE_BYTES = 500_000;

/**
 * Hands fetched records to the tasks, and fetches nothing more for one that holds its share of them: a slow or hot partition fills
 * neither the memory nor the way of the others.
 */
export class FairShare {
  readonly #reader: LogReader;
  readonly #tasks: ReadonlyMap<number, Task>;
  readonly #inputs = new Map<Task, readonly TopicPartition[]>();
  readonly #held = new Set<Task>();

  constructor(reader: LogReader, tasks: ReadonlyMap<number, Task>) {
    this.#reader = reader;
    this.#tasks = tasks;
  }

  /** Fetches for a task, from these offsets on. */
  add(task: Task, from: readonly PartitionOffset[]): void {
    this.#inputs.set(task, from);
    for (const { topic, partition, next } of from) this.#reader.seek(topic, partition, next);
  }

  /** Fetches nothing more for it. */
  remove(task: Task): void {
    for (const { topic, partition } of this.#inputs.get(task) ?? []) this.#reader.drop(topic, partition);
    this.#inputs.delete(task);
    this.#held.delete(task);
  }

  take(batch: FetchedBatch): void {
    // Fetched before it was removed, when there is none.
    this.#tasks.get(batch.partition)?.enqueue(batch);
  }

  /** Holds back what has its share, takes up again what has room; tells how many tasks are held back. */
  balance(): number {
    const tasks = Math.max(1, this.#tasks.size);
    const share = Math.max(LEAST_SHARE, Math.ceil(MOST_QUEUED / tasks));
    const shareBytes = Math.max(LEAST_SHARE_BYTES, Math.ceil(MOST_QUEUED_BYTES / tasks));
    for (const task of this.#tasks.values()) {
      const inputs = this.#inputs.get(task) ?? [];
      if (!this.#held.has(task) && (task.queued > share || task.queuedBytes > shareBytes)) {
        this.#held.add(task);
        for (const { topic, partition } of inputs) this.#reader.pause(topic, partition);
      } else if (this.#held.has(task) && task.queued <= share / 2 && task.queuedBytes <= shareBytes / 2) {
        this.#held.delete(task);
        for (const { topic, partition } of inputs) this.#reader.resume(topic, partition);
      }
    }
    return this.#held.size;
  }
}
