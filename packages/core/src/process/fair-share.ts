import type { FetchedBatch, LogReader, PartitionOffset } from '../log/log.js';
import type { Task } from './task.js';

/** Fetched records that may wait for handlers, over all tasks; half as many again may come with the fetch that exceeds it. */
const MOST_QUEUED = 6_000;
const LEAST_SHARE = 500;

/**
 * Hands fetched records to the tasks, and fetches nothing more for one that holds its share of them: a slow or hot partition fills
 * neither the memory nor the way of the others.
 */
export class FairShare {
  readonly #reader: LogReader;
  readonly #tasks: ReadonlyMap<number, Task>;
  readonly #share: number;
  /** Up to where each input of each task has been fetched. */
  readonly #fetched = new Map<Task, Map<string, PartitionOffset>>();
  readonly #held = new Set<Task>();

  constructor(reader: LogReader, tasks: ReadonlyMap<number, Task>) {
    this.#reader = reader;
    this.#tasks = tasks;
    this.#share = Math.max(LEAST_SHARE, Math.ceil(MOST_QUEUED / Math.max(1, tasks.size)));
  }

  take(batch: FetchedBatch): void {
    const { topic, partition, nextOffset } = batch;
    const task = this.#tasks.get(partition)!;
    task.enqueue(batch);
    let inputs = this.#fetched.get(task);
    if (inputs === undefined) this.#fetched.set(task, (inputs = new Map<string, PartitionOffset>()));
    inputs.set(topic, { topic, partition, next: nextOffset });
    if (this.#held.has(task)) this.#reader.drop(topic, partition);
  }

  /** Holds back what has its share, takes up again what has room; tells how many tasks are held back. */
  balance(): number {
    for (const task of this.#tasks.values()) {
      const inputs = this.#fetched.get(task)?.values() ?? [];
      if (!this.#held.has(task) && task.queued > this.#share) {
        this.#held.add(task);
        for (const { topic, partition } of inputs) this.#reader.drop(topic, partition);
      } else if (this.#held.has(task) && task.queued <= this.#share / 2) {
        this.#held.delete(task);
        for (const { topic, partition, next } of inputs) this.#reader.seek(topic, partition, next);
      }
    }
    return this.#held.size;
  }
}
