import { decodeRun, isRun, type LogInput, type OutRecord, type RecordRun, type TopicPartition } from '@headwater/core';
import type { BatchLimits } from './batch-limits.js';
import { MAX_RECORD_BYTES, MAX_REQUEST_BYTES } from './batch-size.js';
import { BATCH_HEADER_BYTES, recordBytesAtMost } from './record-batch.js';
import { tooLarge } from './writer.errors.js';

/** Records of one partition that go into one batch. */
export interface Chunk extends TopicPartition {
  readonly records: OutRecord[];
  /** Instead of records. */
  readonly run?: RecordRun;
  sizeAtMost: number;
}

/** What of `BatchLimits` cutting needs. */
export type Limits = Pick<BatchLimits, 'of' | 'fillTo'>;

/** Records per partition, in order, cut where a batch is full. A run is a batch as it stands, unless its topic is known not to take it. */
export async function chunksOf(
  inputs: readonly LogInput[],
  partitionOf: (record: OutRecord) => number | Promise<number>,
  limits: Limits,
): Promise<Chunk[]> {
  const cutter = new Cutter(limits);
  for (const input of inputs) {
    if (isRun(input)) {
      cutter.addRun(input);
      continue;
    }
    const chosen = partitionOf(input);
    // Awaiting a number would cost a turn of the loop per record.
    cutter.add(input, typeof chosen === 'number' ? chosen : await chosen);
  }
  return cutter.chunks;
}

/** The records of a chunk, cut anew to what is known of the limits by now. */
export function recut({ partition, records }: Chunk, limits: Limits): Chunk[] {
  const cutter = new Cutter(limits);
  for (const record of records) cutter.add(record, partition);
  return cutter.chunks;
}

/** Requests to send one after the other: each has at most one batch per partition, and a bounded size. */
export function rounds(chunks: readonly Chunk[]): Chunk[][] {
  const all: Chunk[][] = [];
  let current: Chunk[] = [];
  let keys = new Set<string>();
  let size = 0;
  for (const chunk of chunks) {
    const key = `${chunk.topic}/${chunk.partition}`;
    if (keys.has(key) || (size > 0 && size + chunk.sizeAtMost > MAX_REQUEST_BYTES)) {
      all.push(current);
      current = [];
      keys = new Set();
      size = 0;
    }
    current.push(chunk);
    keys.add(key);
    size += chunk.sizeAtMost;
  }
  if (current.length > 0) all.push(current);
  return all;
}

class Cutter {
  readonly chunks: Chunk[] = [];
  readonly #limits: Limits;
  /** The chunk of each partition that takes its next record, and to what size. */
  readonly #filling = new Map<string, { readonly bytes: number; readonly chunks: Map<number, Chunk> }>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  add(record: OutRecord, partition: number): void {
    const { topic } = record;
    const size = recordBytesAtMost(record);
    if (size + BATCH_HEADER_BYTES > MAX_RECORD_BYTES)
      throw tooLarge({ topic, partition, key: record.key }, size, MAX_RECORD_BYTES);
    let filling = this.#filling.get(topic);
    if (filling === undefined)
      this.#filling.set(topic, (filling = { bytes: this.#limits.fillTo(topic), chunks: new Map() }));
    const current = filling.chunks.get(partition);
    if (current !== undefined && current.sizeAtMost + size <= filling.bytes) {
      current.records.push(record);
      current.sizeAtMost += size;
      return;
    }
    const chunk: Chunk = { topic, partition, records: [record], sizeAtMost: BATCH_HEADER_BYTES + size };
    filling.chunks.set(partition, chunk);
    this.chunks.push(chunk);
  }

  addRun(run: RecordRun): void {
    const { topic, partition, count, bytes } = run;
    const sizeAtMost = bytes.length + BATCH_HEADER_BYTES;
    const limit = Math.min(MAX_RECORD_BYTES, this.#limits.of(topic) ?? Infinity);
    if (sizeAtMost > limit && (count > 1 || sizeAtMost > MAX_RECORD_BYTES)) {
      for (const record of decodeRun(run)) this.add(record, partition);
      return;
    }
    this.chunks.push({ topic, partition, records: [], run, sizeAtMost });
    // What comes next for this partition comes behind it.
    this.#filling.get(topic)?.chunks.delete(partition);
  }
}
