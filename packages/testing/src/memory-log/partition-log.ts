import type { LogRecord } from '@headwater/core';

/** What a record brings to the log; the log gives it its place. */
export type NewRecord = Pick<LogRecord, 'key' | 'value' | 'headers' | 'timestamp'>;

interface Entry {
  readonly offset: number;
  /** Absent: a control record. */
  readonly record?: LogRecord;
  /** The transaction it belongs to. Absent: a plain record. */
  readonly transaction?: number;
}

/**
 * One partition: records and control records by offset. A transaction's records count as open until its marker lands here: they hold the last
 * stable offset, and whether they are delivered is decided by that marker alone.
 */
export class PartitionLog {
  readonly topic: string;
  readonly partition: number;
  #entries: Entry[] = [];
  #start = 0;
  #high = 0;
  readonly #open = new Map<number, number>();
  readonly #aborted = new Set<number>();
  readonly #tombstonesSeen = new Set<number>();

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
  }

  get start(): number {
    return this.#start;
  }

  get high(): number {
    return this.#high;
  }

  get lastStable(): number {
    return Math.min(this.#high, ...this.#open.values());
  }

  /** Transactions without a marker here, with the offset of their first record. */
  get open(): ReadonlyMap<number, number> {
    return this.#open;
  }

  /** Returns the offset after the last one. */
  append(records: readonly NewRecord[], transaction?: number): number {
    const { topic, partition } = this;
    if (transaction !== undefined && records.length > 0 && !this.#open.has(transaction))
      this.#open.set(transaction, this.#high);
    for (const record of records) {
      const offset = this.#high++;
      const entry = { offset, record: { ...record, topic, partition, offset } };
      this.#entries.push(transaction === undefined ? entry : { ...entry, transaction });
    }
    return this.#high;
  }

  /** The control record that ends a transaction here. It takes an offset. Nothing when the transaction is not open here. */
  mark(transaction: number, how: 'commit' | 'abort'): void {
    if (!this.#open.delete(transaction)) return;
    if (how === 'abort') this.#aborted.add(transaction);
    this.#entries.push({ offset: this.#high++, transaction });
  }

  /** Committed records from an offset on, below the last stable offset, and where to read on: over everything that is not delivered. */
  read(from: number, most: number): { readonly records: readonly LogRecord[]; readonly next: number } {
    const stable = this.lastStable;
    const records: LogRecord[] = [];
    for (let index = this.#indexOf(from); index < this.#entries.length; index++) {
      const { offset, record, transaction } = this.#entries[index]!;
      if (offset >= stable) break;
      if (record === undefined || (transaction !== undefined && this.#aborted.has(transaction))) continue;
      if (records.length === most) return { records, next: offset };
      records.push(record);
    }
    return { records, next: Math.max(from, stable) };
  }

  /** The first offset whose record is at or after the time; the last stable offset where there is none. */
  firstAt(timestampMs: number): number {
    const stable = this.lastStable;
    const found = this.#entries.find(
      ({ offset, record }) => offset < stable && record !== undefined && record.timestamp >= timestampMs,
    );
    return found?.offset ?? stable;
  }

  /** Drops what is below the offset. */
  deleteBefore(offset: number): void {
    this.#start = Math.max(this.#start, Math.min(offset, this.#high));
    this.#entries = this.#entries.slice(this.#indexOf(this.#start));
  }

  /**
   * Keeps of what is stable the last record of each key, as a broker's cleaner does. Aborted records and control records go, offsets stay:
   * readers meet gaps. A tombstone outlives its first compaction.
   */
  compact(): void {
    const stable = this.lastStable;
    const last = new Map<string, number>();
    const dropped = (entry: Entry) => entry.transaction !== undefined && this.#aborted.has(entry.transaction);
    for (const entry of this.#entries) {
      const key = entry.record?.key;
      if (entry.offset < stable && key != null && !dropped(entry)) last.set(key.toString('latin1'), entry.offset);
    }
    this.#entries = this.#entries.filter((entry) => {
      if (entry.offset >= stable) return true;
      const { record, offset } = entry;
      if (record?.key == null || dropped(entry) || last.get(record.key.toString('latin1')) !== offset) return false;
      if (record.value !== null) return true;
      if (this.#tombstonesSeen.has(offset)) return false;
      this.#tombstonesSeen.add(offset);
      return true;
    });
  }

  /** Index of the first entry at or after the offset. */
  #indexOf(offset: number): number {
    let [low, high] = [0, this.#entries.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#entries[middle]!.offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
