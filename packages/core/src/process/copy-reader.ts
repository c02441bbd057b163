import type { Log, LogReader, LogRecord } from '../log/log.js';
import type { Clock } from '../clock/clock.js';

/** A copy of one partition of a compacted topic. */
export interface TopicCopy {
  /** The offset below which everything is included. */
  readonly stamp: number;
  /** Wall time of the stamp in milliseconds since 1970; 0 or undefined: it was not kept over a time in which nobody looked. */
  readonly savedAtMs?: number | undefined;
  /** Takes the next records, up to `stamp`. */
  restore(records: readonly LogRecord[], stamp: number): void | Promise<void>;
  /** Forgets everything; the stamp is 0 again. */
  clear(): void | Promise<void>;
}

export interface CopyContext {
  readonly log: Log;
  readonly topic: string;
  readonly copies: ReadonlyMap<number, TopicCopy>;
  readonly clock: Clock;
  /** How long the topic keeps tombstones (`delete.retention.ms`). */
  readonly tombstonesMs: number;
}

/**
 * Brings copies of a topic's partitions up to date, committed records only, and keeps them there. A copy that cannot become right by reading
 * on is cleared and read from the start: one that is ahead of the log, that ends before the log begins, or that is so old that the
 * compaction may have removed tombstones it has not seen.
 */
export class CopyReader {
  readonly #context: CopyContext;
  readonly #reader: LogReader;
  readonly #from = new Map<number, number>();
  readonly #position = new Map<number, number>();
  readonly #ends = new Map<number, number>();
  readonly #closing = new AbortController();
  #coming: ReturnType<LogReader['poll']> | undefined;

  constructor(context: CopyContext) {
    this.#context = context;
    this.#reader = context.log.reader();
  }

  /** Looks where the topic ends now, and finds the place of each copy. Called once, first. */
  async begin(): Promise<void> {
    const { log, topic, copies } = this.#context;
    const offsets = new Map((await log.admin.offsets(topic)).map((offset) => [offset.partition, offset]));
    for (const [partition, copy] of copies) {
      const { start = 0, high = 0, lastStable = 0 } = offsets.get(partition) ?? {};
      if (!this.#isUsable(copy, start, lastStable, high)) await copy.clear();
      const from = Math.max(copy.stamp, start);
      this.#from.set(partition, from);
      this.#position.set(partition, from);
      this.#ends.set(partition, lastStable);
      this.#reader.seek(topic, partition, from);
    }
  }

  /** Whether the copy includes everything that was committed when this began. */
  hasReached(partition: number): boolean {
    return this.#position.get(partition)! >= this.#ends.get(partition)!;
  }

  get hasReachedAll(): boolean {
    return [...this.#position.keys()].every((partition) => this.hasReached(partition));
  }

  /** In offsets, since this began. */
  get progress(): { readonly done: number; readonly total: number } {
    let done = 0;
    let total = 0;
    for (const [partition, from] of this.#from) {
      done += this.#position.get(partition)! - from;
      total += Math.max(0, this.#ends.get(partition)! - from);
    }
    return { done, total };
  }

  /** Takes one round into the copies, at latest after `maxWaitMs`. The next round is fetched meanwhile. */
  async advance(maxWaitMs: number): Promise<void> {
    const poll = () => this.#reader.poll({ maxWaitMs, signal: this.#closing.signal });
    const batches = await (this.#coming ?? poll());
    if (this.#closing.signal.aborted) return;
    this.#coming = poll();
    this.#coming.catch(() => undefined); // the next call tells
    for (const { partition, records, nextOffset } of batches) {
      await this.#context.copies.get(partition)!.restore(records, nextOffset);
      this.#position.set(partition, nextOffset);
    }
  }

  /** Makes an `advance` that waits end at once, and every later one. */
  interrupt(): void {
    this.#closing.abort();
  }

  /** Called when `advance` has ended. */
  async close(): Promise<void> {
    this.interrupt();
    await this.#coming?.catch(() => undefined);
    await this.#reader.close();
  }

  #isUsable(copy: TopicCopy, start: number, lastStable: number, high: number): boolean {
    if (copy.stamp > high || copy.stamp < start) return false;
    // Behind the stamp of an idle task stands a commit marker, and nothing else that could have been missed.
    if (copy.stamp === 0 || !copy.savedAtMs || lastStable - copy.stamp <= 1) return true;
    return this.#context.clock.now() - copy.savedAtMs < this.#context.tombstonesMs;
  }
}
