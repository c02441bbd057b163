import { crc32c } from '@node-rs/crc32';
import {
  BATCH_HEADER_BYTES,
  putVarint,
  recordBodyBytes,
  recordBytesAtMost,
  type BufferPool,
  type Header,
  type OutRecord,
  type RecordRun,
} from '@headwater/core';
import type { Packer } from './codecs.js';

/** Under whose name a batch is written. A retry sends the same bytes, so the broker knows a repetition by its sequence. */
export interface BatchProducer {
  readonly producerId: bigint;
  readonly epoch: number;
  readonly baseSequence: number;
}

const TRANSACTIONAL = 16;
const SEQUENCE_MODULUS = 0x8000_0000;
const NO_HEADERS: readonly Header[] = [];

/** Sequence numbers wrap modulo 2^31, as the broker expects. */
export function sequenceAfter(sequence: number, records: number): number {
  return (sequence + records) % SEQUENCE_MODULUS;
}

/** How a batch is made. */
export interface BatchOptions {
  /** Default: uncompressed. */
  readonly packer?: Packer | undefined;
  readonly kind: 'transactional' | 'plain';
  readonly buffers: BufferPool;
}

/** One record batch (magic 2) of `records`, all of one partition. `buffer`: what its bytes are a view of when that is of `buffers`, to go back there. */
export function encodeBatch(
  records: readonly OutRecord[],
  producer: BatchProducer,
  nowMs: number,
  { packer, kind, buffers }: BatchOptions,
): { readonly bytes: Buffer; readonly buffer?: Buffer; readonly unpackedBytes?: number } {
  let capacity = BATCH_HEADER_BYTES;
  for (const record of records) capacity += recordBytesAtMost(record);
  const batch = buffers.take(capacity);
  const firstTimestamp = records[0]!.timestamp ?? nowMs;
  let maxTimestamp = firstTimestamp;
  let at = BATCH_HEADER_BYTES;
  for (let index = 0; index < records.length; index++) {
    const record = records[index]!;
    const timestamp = record.timestamp ?? nowMs;
    if (timestamp > maxTimestamp) maxTimestamp = timestamp;
    at = putRecord(batch, at, record, index, timestamp - firstTimestamp);
  }
  let bytes = batch.subarray(0, at);
  if (packer !== undefined) {
    bytes = Buffer.concat([batch.subarray(0, BATCH_HEADER_BYTES), packer.pack(batch.subarray(BATCH_HEADER_BYTES, at))]);
    buffers.give(batch);
  }
  const attributes = (kind === 'transactional' ? TRANSACTIONAL : 0) | (packer?.codec ?? 0);
  putHeader(bytes, { attributes, records: records.length, firstTimestamp, maxTimestamp, producer }, bytes.length);
  bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17);
  return packer === undefined ? { bytes, buffer: batch } : { bytes, unpackedBytes: at };
}

/** The batch of a run, of a transaction: its header, and the records where they are, or packed. */
export function runBatch(
  run: RecordRun,
  producer: BatchProducer,
  packer?: Packer,
): { bytes: Buffer; rest: Buffer; unpackedBytes?: number } {
  const rest = packer === undefined ? run.bytes : packer.pack(run.bytes);
  const bytes = Buffer.allocUnsafe(BATCH_HEADER_BYTES);
  const { count: records, timestampMs } = run;
  const attributes = TRANSACTIONAL | (packer?.codec ?? 0);
  const header = { attributes, records, firstTimestamp: timestampMs, maxTimestamp: timestampMs, producer };
  putHeader(bytes, header, BATCH_HEADER_BYTES + rest.length);
  bytes.writeUInt32BE(crc32c(rest, crc32c(bytes.subarray(21))), 17);
  return packer === undefined ? { bytes, rest } : { bytes, rest, unpackedBytes: BATCH_HEADER_BYTES + run.bytes.length };
}

interface BatchHeader {
  readonly attributes: number;
  readonly records: number;
  readonly firstTimestamp: number;
  readonly maxTimestamp: number;
  readonly producer: BatchProducer;
}

/** All but the CRC, which comes last. */
function putHeader(bytes: Buffer, header: BatchHeader, length: number): void {
  const { producer } = header;
  bytes.fill(0, 0, 8); // base offset: the broker sets it
  bytes.writeInt32BE(length - 12, 8);
  bytes.writeInt32BE(-1, 12); // leader epoch: unknown
  bytes[16] = 2; // magic
  bytes.writeInt16BE(header.attributes, 21);
  bytes.writeInt32BE(header.records - 1, 23);
  bytes.writeBigInt64BE(BigInt(header.firstTimestamp), 27);
  bytes.writeBigInt64BE(BigInt(header.maxTimestamp), 35);
  bytes.writeBigInt64BE(producer.producerId, 43);
  bytes.writeInt16BE(producer.epoch, 51);
  bytes.writeInt32BE(producer.baseSequence, 53);
  bytes.writeInt32BE(header.records, 57);
}

function putRecord(batch: Buffer, start: number, record: OutRecord, index: number, timestampDelta: number): number {
  const headers = record.headers ?? NO_HEADERS;
  let at = putVarint(batch, start, recordBodyBytes(record, index, timestampDelta));
  batch[at++] = 0; // attributes
  at = putVarint(batch, at, timestampDelta);
  at = putVarint(batch, at, index);
  at = putBytes(batch, at, record.key);
  at = putBytes(batch, at, record.value);
  at = putVarint(batch, at, headers.length);
  for (const [name, value] of headers) {
    at = putVarint(batch, at, Buffer.byteLength(name));
    at += batch.write(name, at);
    at = putBytes(batch, at, value);
  }
  return at;
}

function putBytes(batch: Buffer, start: number, bytes: Buffer | null): number {
  if (bytes === null) {
    batch[start] = 1; // zigzag of -1
    return start + 1;
  }
  const at = putVarint(batch, start, bytes.length);
  bytes.copy(batch, at);
  return at + bytes.length;
}
