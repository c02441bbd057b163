import { decodeRun, isRun, varintSize, type LogInput, type OutRecord, type TopicPartition } from '@headwater/core';
import { tooLarge } from './refusals.js';

/** What Kafka's driver fills a batch to while it knows of no smaller limit, and the largest record it sends. */
const MAX_BATCH_BYTES = 1_000_000;
const MAX_RECORD_BYTES = 8_000_000;
const HEADER_BYTES = 61;

/** Records of one partition that a broker takes or refuses together. */
export interface Batch extends TopicPartition {
  readonly records: OutRecord[];
  /** Of a run, whose bytes are what they are. */
  readonly bytes?: number;
  sizeAtMost: number;
}

/** What one client has learnt of the topics whose limit is below a batch: batches are cut to it from then on. */
export class LearntLimits {
  readonly #limits = new Map<string, number>();

  of(topic: string): number {
    return this.#limits.get(topic) ?? Infinity;
  }

  learn(topic: string, limit: number): void {
    this.#limits.set(topic, Math.min(limit, this.of(topic)));
  }
}

/** Cuts what is appended together as Kafka's driver does. Throws RECORD_TOO_LARGE for what no topic takes. */
export function batchesOf(
  inputs: readonly LogInput[],
  partitionOf: (record: OutRecord) => number,
  limits: LearntLimits,
): Batch[] {
  const batches: Batch[] = [];
  const filling = new Map<string, Batch>();
  const add = (record: OutRecord, partition: number) => {
    const { topic, key } = record;
    const size = sizeAtMost(record);
    if (size + HEADER_BYTES > MAX_RECORD_BYTES) throw tooLarge(topic, partition, key, size, MAX_RECORD_BYTES);
    const place = `${topic}/${partition}`;
    const current = filling.get(place);
    if (current !== undefined && current.sizeAtMost + size <= Math.min(MAX_BATCH_BYTES, limits.of(topic))) {
      current.records.push(record);
      current.sizeAtMost += size;
      return;
    }
    const batch = { topic, partition, records: [record], sizeAtMost: HEADER_BYTES + size };
    filling.set(place, batch);
    batches.push(batch);
  };
  for (const input of inputs) {
    if (!isRun(input)) {
      add(input, partitionOf(input));
      continue;
    }
    const { topic, partition } = input;
    const records = decodeRun(input);
    const bytes = input.bytes.length + HEADER_BYTES;
    if (bytes > Math.min(MAX_RECORD_BYTES, limits.of(topic)) && (records.length > 1 || bytes > MAX_RECORD_BYTES)) {
      for (const record of records) add(record, partition);
      continue;
    }
    filling.delete(`${topic}/${partition}`);
    batches.push({ topic, partition, records, bytes, sizeAtMost: bytes });
  }
  return batches;
}

/** What the batch takes on a broker's disk. */
export function batchBytes({ records, bytes }: Batch, now: number): number {
  if (bytes !== undefined) return bytes;
  const first = records[0]?.timestamp ?? now;
  return records.reduce((sum, record, index) => sum + recordBytes(record, index, first, now), HEADER_BYTES);
}

function recordBytes({ key, value, headers = [], timestamp }: OutRecord, index: number, first: number, now: number) {
  let size = 1 + varintSize((timestamp ?? now) - first) + varintSize(index) + bytesSize(key) + bytesSize(value);
  size += varintSize(headers.length);
  for (const [name, bytes] of headers) {
    const nameBytes = Buffer.byteLength(name);
    size += varintSize(nameBytes) + nameBytes + bytesSize(bytes);
  }
  return varintSize(size) + size;
}

function bytesSize(bytes: Buffer | null): number {
  return bytes === null ? 1 : varintSize(bytes.length) + bytes.length;
}

function sizeAtMost({ key, value, headers = [] }: OutRecord): number {
  let size = 36 + (key?.length ?? 0) + (value?.length ?? 0);
  for (const [name, bytes] of headers) size += 10 + name.length * 3 + (bytes?.length ?? 0);
  return size;
}
