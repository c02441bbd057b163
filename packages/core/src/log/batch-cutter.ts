import type { Header, OutRecord, TopicPartition } from './log.js';
import { decodeRun, type RecordRun } from './record-run.js';
import { varintSize } from './varint.js';

/** To what size batches are filled where nothing smaller is known: below the broker's default `message.max.bytes` of 1,048,588. */
export const MAX_BATCH_BYTES = 1_000_000;
/** A record above MAX_BATCH_BYTES has a batch of its own, and `max.message.bytes` of its topic decides; above this it is not even sent. */
export const MAX_RECORD_BYTES = 8_000_000;
/** Bytes before the first record of a batch (message format 2). */
export const BATCH_HEADER_BYTES = 61;
const NO_HEADERS: readonly Header[] = [];

/** Records of one partition that a log takes or refuses together. */
export interface Batch extends TopicPartition {
  readonly records: OutRecord[];
  /** Instead of records. */
  readonly run?: RecordRun;
  sizeAtMost: number;
}

/** What topics take as one batch, as far as it is known. */
export interface KnownLimits {
  of(topic: string): number | undefined;
}

/**
 * Cuts what is appended into batches: records per partition, in order, a new batch where one is full. A run is a batch as it stands, unless its topic
 * is known not to take it. Throws what `refusal` makes for a record above MAX_RECORD_BYTES.
 */
export class BatchCutter {
  readonly batches: Batch[] = [];
  readonly #limits: KnownLimits;
  readonly #refusal: (record: OutRecord & TopicPartition, bytes: number) => Error;
  /** The batch of each partition that takes its next record, and to what size. */
  readonly #filling = new Map<string, { readonly bytes: number; readonly batches: Map<number, Batch> }>();

  constructor(limits: KnownLimits, refusal: (record: OutRecord & TopicPartition, bytes: number) => Error) {
    this.#limits = limits;
    this.#refusal = refusal;
  }

  add(record: OutRecord, partition: number): void {
    const { topic } = record;
    const size = recordBytesAtMost(record);
    if (size + BATCH_HEADER_BYTES > MAX_RECORD_BYTES) throw this.#refusal({ ...record, partition }, size);
    let filling = this.#filling.get(topic);
    if (filling === undefined)
      this.#filling.set(topic, (filling = { bytes: fillTo(this.#limits, topic), batches: new Map() }));
    const current = filling.batches.get(partition);
    if (current !== undefined && current.sizeAtMost + size <= filling.bytes) {
      current.records.push(record);
      current.sizeAtMost += size;
      return;
    }
    const batch: Batch = { topic, partition, records: [record], sizeAtMost: BATCH_HEADER_BYTES + size };
    filling.batches.set(partition, batch);
    this.batches.push(batch);
  }

  addRun(run: RecordRun): void {
    const { topic, partition, count, bytes } = run;
    const sizeAtMost = bytes.length + BATCH_HEADER_BYTES;
    const limit = Math.min(MAX_RECORD_BYTES, this.#limits.of(topic) ?? Infinity);
    if (sizeAtMost > limit && (count > 1 || sizeAtMost > MAX_RECORD_BYTES)) {
      for (const record of decodeRun(run)) this.add(record, partition);
      return;
    }
    this.batches.push({ topic, partition, records: [], run, sizeAtMost });
    // What comes next for this partition comes behind it.
    this.#filling.get(topic)?.batches.delete(partition);
  }
}

/** To what size batches of the topic are filled. A record above it has a batch of its own. */
export function fillTo(limits: KnownLimits, topic: string): number {
  return Math.min(MAX_BATCH_BYTES, limits.of(topic) ?? MAX_BATCH_BYTES);
}

/** An upper bound of what the record takes in a batch; never below its true size. */
export function recordBytesAtMost({ key, value, headers }: OutRecord): number {
  let size = 36 + (key?.length ?? 0) + (value?.length ?? 0);
  if (headers !== undefined) {
    for (const [name, bytes] of headers) size += 10 + name.length * 3 + (bytes?.length ?? 0);
  }
  return size;
}

/** What the record takes in a batch, at this place and so long after the first, without the number in front that tells it. */
export function recordBodyBytes(
  { key, value, headers = NO_HEADERS }: OutRecord,
  index: number,
  timestampDelta: number,
): number {
  let size = 1 + varintSize(timestampDelta) + varintSize(index) + bytesSize(key) + bytesSize(value);
  size += varintSize(headers.length);
  for (const [name, bytes] of headers) {
    const nameLength = Buffer.byteLength(name);
    size += varintSize(nameLength) + nameLength + bytesSize(bytes);
  }
  return size;
}

function bytesSize(bytes: Buffer | null): number {
  return bytes === null ? 1 : varintSize(bytes.length) + bytes.length;
}
