import type { LogRecord } from '../log/log.js';
import type { TopicCopy } from './copy-reader.js';
import { PagedValues } from './paged-values.js';

/** A whole compacted topic, read by key. */
export interface Table {
  /** The latest committed value this instance has seen; undefined: none, or deleted. A key that is no text is asked for by its bytes. */
  get(key: string | Buffer): Buffer | undefined;
  /** Per partition the offset of the topic below which everything is included. */
  readonly offsets: ReadonlyMap<number, number>;
}

/** Every partition of a topic in the memory of one instance. A key is expected in one partition, whichever its writer chose. */
export class GlobalTable implements Table {
  /** Copies by partition, for a follower. */
  readonly copies: ReadonlyMap<number, TopicCopy>;
  readonly #partitions: readonly TablePartition[];

  constructor(partitionCount: number) {
    this.#partitions = Array.from({ length: partitionCount }, () => new TablePartition());
    this.copies = new Map(this.#partitions.map((partition, n) => [n, partition]));
  }

  get(key: string | Buffer): Buffer | undefined {
    for (const { values } of this.#partitions) {
      const value = values.get(key);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  get offsets(): ReadonlyMap<number, number> {
    return new Map(this.#partitions.map(({ stamp }, n) => [n, stamp]));
  }

  /** All keys, for listing and comparison. */
  *keys(): Generator<string> {
    for (const { values } of this.#partitions) yield* values.keys();
  }
}

class TablePartition implements TopicCopy {
  readonly values = new PagedValues();
  stamp = 0;

  restore(records: readonly LogRecord[], stamp: number): void {
    for (const { key, value } of records) {
      if (key === null) continue;
      if (value === null) this.values.delete(key);
      else this.values.set(key, value);
    }
    this.stamp = stamp;
  }

  clear(): void {
    this.values.clear();
    this.stamp = 0;
  }
}
