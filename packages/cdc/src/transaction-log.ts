import type { OutRecord } from '@headwater/core';
import type { SourceHeaders } from './rows.js';

/**
 * Tells of each source transaction that has put records into topics how many they are, in a record of its own at its end, in the same log transaction. Key
 * is the transaction id, which Postgres gives again after 2^32 transactions; the commit LSN is not.
 */
export class TransactionLog {
  readonly #counts = new Map<string, number>();
  #total = 0;

  constructor(readonly topic: string) {}

  begin(): void {
    if (this.#total === 0) return;
    this.#counts.clear();
    this.#total = 0;
  }

  count(topic: string, records: number): void {
    this.#counts.set(topic, (this.#counts.get(topic) ?? 0) + records);
    this.#total += records;
  }

  /** Undefined: the transaction has put nothing anywhere. */
  end({ lsn, tx, ts, context = [] }: SourceHeaders): OutRecord | undefined {
    if (this.#total === 0) return undefined;
    const [id, at, micros] = [tx, lsn, ts].map(([, bytes]) => bytes!.toString());
    const value = { id, lsn: at, ts: micros, count: this.#total, topics: Object.fromEntries(this.#counts) };
    return {
      topic: this.topic,
      partition: 0,
      key: Buffer.from(id!),
      value: Buffer.from(JSON.stringify(value)),
      headers: [lsn, tx, ts, ...context],
    };
  }
}
