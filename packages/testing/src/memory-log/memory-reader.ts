import type { FetchedBatch, LogReader, PartitionOffset } from '@headwater/core';
import type { Connection } from './connection.js';
import type { MemoryCluster } from './memory-cluster.js';
import { closed, outOfRange } from './refusals.js';

const DEFAULT_MAX_WAIT_MS = 250;

export class MemoryReader implements LogReader {
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;
  readonly #maxRecords: () => number;
  readonly #positions = new Map<string, PartitionOffset>();
  readonly #paused = new Set<string>();
  readonly #closing = new AbortController();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;

  /** `maxRecords`: how many records of one partition one fetch brings at most. */
  constructor(cluster: MemoryCluster, connection: Connection, maxRecords: () => number) {
    this.#cluster = cluster;
    this.#connection = connection;
    this.#maxRecords = maxRecords;
    connection.adopt(this.#stoppable);
  }

  seek(topic: string, partition: number, offset: number): void {
    this.#positions.set(`${topic}/${partition}`, { topic, partition, next: offset });
    this.#paused.delete(`${topic}/${partition}`);
  }

  drop(topic: string, partition: number): void {
    this.#positions.delete(`${topic}/${partition}`);
  }

  pause(topic: string, partition: number): void {
    this.#paused.add(`${topic}/${partition}`);
  }

  resume(topic: string, partition: number): void {
    this.#paused.delete(`${topic}/${partition}`);
  }

  async poll(
    options: { readonly maxWaitMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<readonly FetchedBatch[]> {
    const { maxWaitMs = DEFAULT_MAX_WAIT_MS, signal } = options;
    const { clock } = this.#connection;
    const deadline = clock.elapsed() + maxWaitMs;
    for (;;) {
      this.#assertOpen();
      if (signal?.aborted) return [];
      const asked = [...this.#positions.values()].filter((position) => !this.#isPaused(position));
      const batches = await this.#connection.request({ request: 'poll' }, () => this.#fetch(asked));
      this.#assertOpen();
      if (signal?.aborted) return [];
      const fresh = batches.filter((batch) => this.#advance(batch, asked));
      const leftMs = deadline - clock.elapsed();
      if (fresh.length > 0 || leftMs <= 0) return fresh;
      await this.#connection.rest(this.#cluster.logChanged, leftMs, signal, this.#closing.signal);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#connection.dismiss(this.#stoppable);
  }

  #fetch(asked: readonly PartitionOffset[]): FetchedBatch[] {
    const batches: FetchedBatch[] = [];
    for (const { topic, partition, next: from } of asked) {
      // A topic that is not there yet is waited for.
      const log = this.#cluster.topics.find(topic)?.partitions[partition];
      if (log === undefined) continue;
      if (from < log.start || from > log.high) throw outOfRange(topic, partition, from, log.start, log.high);
      const { records, next } = log.read(from, Math.max(1, this.#maxRecords()));
      if (next === from) continue;
      const { lastStable, high } = log;
      batches.push({
        topic,
        partition,
        from,
        records,
        nextOffset: next,
        lastStableOffset: lastStable,
        highWatermark: high,
      });
    }
    return batches;
  }

  /** False: sought anew or dropped since the fetch was sent. */
  #advance({ topic, partition, nextOffset }: FetchedBatch, asked: readonly PartitionOffset[]): boolean {
    const position = this.#positions.get(`${topic}/${partition}`);
    if (position === undefined || !asked.includes(position) || this.#isPaused(position)) return false;
    this.#positions.set(`${topic}/${partition}`, { topic, partition, next: nextOffset });
    return true;
  }

  #isPaused({ topic, partition }: PartitionOffset): boolean {
    return this.#paused.has(`${topic}/${partition}`);
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted) throw closed();
    this.#connection.assertOpen();
  }
}
