import { isRun, type LogInput, type OutRecord, type RecordRun, type TopicPartition } from '@headwater/core';
import { BATCH_HEADER_BYTES, recordBytesAtMost } from './record-batch.js';
import { runTooLarge, tooLarge } from './writer.errors.js';

/** Below the broker's default message.max.bytes of 1,048,588. */
export const MAX_BATCH_BYTES = 1_000_000;
const MAX_REQUEST_BYTES = 8_000_000;
/** A record above MAX_BATCH_BYTES has a batch of its own, and max.message.bytes of its topic decides. */
const MAX_RECORD_BYTES = MAX_REQUEST_BYTES;

/** Records of one partition that go into one batch. */
export interface Chunk extends TopicPartition {
  readonly records: OutRecord[];
  /** Instead of records. */
  readonly run?: RecordRun;
  sizeAtMost: number;
}

/** Records per partition, in order, cut where a batch is full. A run is a batch as it stands. */
export async function chunksOf(
  records: readonly LogInput[],
  partitionOf: (record: OutRecord) => number | Promise<number>,
): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  const filling = new Map<string, Map<number, Chunk>>();
  for (const record of records) {
    const { topic } = record;
    if (isRun(record)) {
      const { partition, bytes } = record;
      const sizeAtMost = bytes.length + BATCH_HEADER_BYTES;
      if (sizeAtMost > MAX_RECORD_BYTES) throw runTooLarge(record, MAX_RECORD_BYTES);
      chunks.push({ topic, partition, records: [], run: record, sizeAtMost });
      // What comes next for this partition comes behind it.
      filling.get(topic)?.delete(partition);
      continue;
    }
    const chosen = record.partition ?? partitionOf(record);
    // Awaiting a number would cost a turn of the loop per record.
    const partition = typeof chosen === 'number' ? chosen : await chosen;
    const size = recordBytesAtMost(record);
    if (size + BATCH_HEADER_BYTES > MAX_RECORD_BYTES) throw tooLarge(topic, partition, size, MAX_RECORD_BYTES);
    let ofTopic = filling.get(topic);
    if (ofTopic === undefined) filling.set(topic, (ofTopic = new Map()));
    const current = ofTopic.get(partition);
    if (current !== undefined && current.sizeAtMost + size <= MAX_BATCH_BYTES) {
      current.records.push(record);
      current.sizeAtMost += size;
      continue;
    }
    const chunk: Chunk = { topic, partition, records: [record], sizeAtMost: BATCH_HEADER_BYTES + size };
    ofTopic.set(partition, chunk);
    chunks.push(chunk);
  }
  return chunks;
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
