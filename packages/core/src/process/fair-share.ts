import type { FetchedBatch, LogReader, PartitionOffset } from '../log/log.js';
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
  /** Up to where each input of each task has been fetched. */
  readonly #fetched = new Map<Task, Map<string, PartitionOffset>>();
  readonly #held = new Set<Task>();

  constructor(reader: LogReader, tasks: ReadonlyMap<number, Task>) {
    this.#reader = reader;
    this.#tasks = tasks;
  }

  /** Fetches for a task, from these offsets on. */
  add(task: Task, from: readonly PartitionOffset[]): void {
    this.#fetched.set(task, new Map(from.map((position) => [position.topic, position])));
    for (const { topic, partition, next } of from) this.#reader.seek(topic, partition, next);
  }

  /** Fetches nothing more for it. */
  remove(task: Task): void {
    for (const { topic, partition } of this.#fetched.get(task)?.values() ?? []) this.#reader.drop(topic, partition);
    this.#fetched.delete(task);
    this.#held.delete(task);
  }

  take(batch: FetchedBatch): void {
    const { topic, partition, nextOffset } = batch;
    const task = this.#tasks.get(partition);
    // Fetched before it was removed.
    if (task === undefined) return;
    task.enqueue(batch);
    this.#fetched.get(task)!.set(topic, { topic, partition, next: nextOffset });
    if (this.#held.has(task)) this.#reader.drop(topic, partition);
  }

  /** Holds back what has its share, takes up again what has room; tells how many tasks are held back. */
  balance(): number {
    const tasks = Math.max(1, this.#tasks.size);
    const share = Math.max(LEAST_SHARE, Math.ceil(MOST_QUEUED / tasks));
    const shareBytes = Math.max(LEAST_SHARE_BYTES, Math.ceil(MOST_QUEUED_BYTES / tasks));
    for (const task of this.#tasks.values()) {
      const inputs = this.#fetched.get(task)?.values() ?? [];
      if (!this.#held.has(task) && (task.queued > share || task.queuedBytes > shareBytes)) {
        this.#held.add(task);
        for (const { topic, partition } of inputs) this.#reader.drop(topic, partition);
      } else if (this.#held.has(task) && task.queued <= share / 2 && task.queuedBytes <= shareBytes / 2) {
        this.#held.delete(task);
        for (const { topic, partition, next } of inputs) this.#reader.seek(topic, partition, next);
      }
    }
    return this.#held.size;
  }
}
