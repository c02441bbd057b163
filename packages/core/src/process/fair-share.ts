import { backoffMs } from '../clock/clock.js';
import { HeadwaterError } from '../errors/headwater.error.js';
import type { FetchedBatch, LogReader, PartitionOffset, TopicPartition } from '../log/log.js';
import type { Task } from './task.js';

/** Fetched records that may wait for handlers, over all tasks; what comes with the fetch that exceeds it is kept too. */
const MOST_QUEUED = 6_000;
const LEAST_SHARE = 500;
/** The same in bytes of keys and values. */
const MOST_QUEUED_BYTES = 16_000_000;
const LEAST_SHARE_BYTES = 500_000;
/** How long a task rests whose input cannot be read: from the first, doubled each time, to the second. */
const FIRST_REST_MS = 1_000;
const LONGEST_REST_MS = 30_000;
/** Asked for again so long without an error, it can be read, also when there is nothing to read. */
const PROBATION_MS = 5_000;
/** Where an input goes on is decided when the work begins. */
const OF_POSITIONS: ReadonlySet<string> = new Set(['LOG_OFFSET_OUT_OF_RANGE', 'LOG_TOPIC_RECREATED']);

/** Why an input of a task cannot be read, how often that was tried, and when it is tried again. */
interface Unreadable {
  readonly topic: string;
  readonly error: HeadwaterError;
  readonly attempts: number;
  readonly retryAt: number;
  /** Since when it is asked for again. */
  askedSince?: number;
}

/** What fetching has to do with. */
export interface Balance {
  /** Some task is not held back. */
  readonly canRead: boolean;
  /** Some task has its share, and may want more at any time. */
  readonly hasFull: boolean;
}

/**
 * Hands fetched records to the tasks, and fetches nothing more for one that holds its share of them, or for a while of whose inputs one cannot be read: a slow, hot or damaged
 * partition fills neither the memory nor the way of the others.
 */
export class FairShare {
  readonly #reader: LogReader;
  readonly #tasks: ReadonlyMap<number, Task>;
  readonly #inputs = new Map<Task, readonly TopicPartition[]>();
  readonly #full = new Set<Task>();
  readonly #unreadable = new Map<Task, Unreadable>();
  /** Nothing is fetched for these. */
  readonly #held = new Set<Task>();

  constructor(reader: LogReader, tasks: ReadonlyMap<number, Task>) {
    this.#reader = reader;
    this.#tasks = tasks;
  }

  /** Why nothing comes of some partitions. */
  get unreadable(): ReadonlyMap<number, HeadwaterError> {
    return new Map([...this.#unreadable].map(([{ partition }, { error }]) => [partition, error]));
  }

  /** Fetches for a task, from these offsets on. */
  add(task: Task, from: readonly PartitionOffset[]): void {
    this.#inputs.set(task, from);
    for (const { topic, partition, next } of from) this.#reader.seek(topic, partition, next);
  }

  /** Fetches nothing more for it. */
  remove(task: Task): void {
    for (const { topic, partition } of this.#inputs.get(task) ?? []) this.#reader.drop(topic, partition);
    for (const known of [this.#inputs, this.#full, this.#unreadable, this.#held]) known.delete(task);
  }

  take(batch: FetchedBatch): void {
    const task = this.#tasks.get(batch.partition);
    // Fetched before it was removed.
    if (task === undefined) return;
    task.enqueue(batch);
    if (this.#unreadable.get(task)?.topic === batch.topic) this.#unreadable.delete(task);
  }

  /** Lets a task rest because of what a fetch failed with, and tells how often it failed in a row. Undefined: that is not of one partition, or not for it to decide. */
  letRest(error: unknown, now: number): { readonly partition: number; readonly attempts: number } | undefined {
    if (!(error instanceof HeadwaterError) || OF_POSITIONS.has(error.code)) return undefined;
    const { topic, partition } = error.facts;
    const found = [...this.#inputs].find(([, inputs]) =>
      inputs.some((input) => input.topic === topic && input.partition === partition),
    );
    if (found === undefined) return undefined;
    const [task] = found;
    const attempts = (this.#unreadable.get(task)?.attempts ?? 0) + 1;
    const retryAt = now + backoffMs(attempts, FIRST_REST_MS, LONGEST_REST_MS);
    this.#unreadable.set(task, { topic: String(topic), error, attempts, retryAt });
    return { partition: task.partition, attempts };
  }

  /** Holds back what has its share or rests, takes up again what has room or has rested. `now`: by the clock's elapsed time. */
  balance(now: number): Balance {
    const tasks = Math.max(1, this.#tasks.size);
    const share = Math.max(LEAST_SHARE, Math.ceil(MOST_QUEUED / tasks));
    const shareBytes = Math.max(LEAST_SHARE_BYTES, Math.ceil(MOST_QUEUED_BYTES / tasks));
    for (const task of this.#tasks.values()) {
      const most = this.#full.has(task) ? 1 / 2 : 1;
      if (task.queued > share * most || task.queuedBytes > shareBytes * most) this.#full.add(task);
      else this.#full.delete(task);
      const unreadable = this.#unreadable.get(task);
      if (this.#full.has(task) || now < (unreadable?.retryAt ?? -Infinity)) {
        this.#hold(task);
        continue;
      }
      this.#letGo(task);
      if (unreadable !== undefined && now - (unreadable.askedSince ??= now) > PROBATION_MS)
        this.#unreadable.delete(task);
    }
    return { canRead: this.#held.size < this.#tasks.size, hasFull: this.#full.size > 0 };
  }

  #hold(task: Task): void {
    if (this.#held.has(task)) return;
    this.#held.add(task);
    for (const { topic, partition } of this.#inputs.get(task) ?? []) this.#reader.pause(topic, partition);
  }

  #letGo(task: Task): void {
    if (!this.#held.delete(task)) return;
    for (const { topic, partition } of this.#inputs.get(task) ?? []) this.#reader.resume(topic, partition);
  }
}
