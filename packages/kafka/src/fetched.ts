import { crc32c } from '@node-rs/crc32';
import type { Header, LogRecord } from '@headwater/core';
import { ByteReader, readInt64 } from './bytes.js';
import { decompress } from './codecs.js';
import { KafkaError } from './kafka.errors.js';
import { BATCH_HEADER_BYTES } from './record-batch.js';

/** A transaction the broker names as aborted, from its first offset on that partition until its abort marker. */
export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: number;
}

/** What one partition of a Fetch answer holds, as bytes. */
export interface FetchedBytes {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  readonly bytes: Buffer;
  readonly aborted: readonly AbortedTransaction[];
}

const CODEC = 7;
const LOG_APPEND_TIME = 8;
const TRANSACTIONAL = 16;
const CONTROL = 32;
const NO_HEADERS: readonly Header[] = [];

/**
 * The committed records from `from` on, and the offset to read next. Records of aborted transactions and markers are left out; a batch cut
 * off at the end is left for the next fetch. Keys and values are views of `bytes`.
 */
export function decodeFetched(fetched: FetchedBytes): { records: LogRecord[]; nextOffset: number } {
  const { bytes, from } = fetched;
  // The broker lists aborted transactions in the order they ended; the filter opens them in the order they began.
  const aborted = [...fetched.aborted].sort((a, b) => a.firstOffset - b.firstOffset);
  const open = new Set<bigint>();
  const records: LogRecord[] = [];
  let listed = 0;
  let nextOffset = from;
  let at = 0;
  while (at + BATCH_HEADER_BYTES <= bytes.length) {
    const baseOffset = readInt64(bytes, at);
    const end = at + 12 + bytes.readInt32BE(at + 8);
    if (end > bytes.length) break;
    // lastOffsetDelta survives compaction; the last record's offset does not, and would read the same hole for ever.
    const lastOffset = baseOffset + bytes.readInt32BE(at + 23);
    if (lastOffset >= from) {
      checkBatch(fetched, at, end, baseOffset);
      const attributes = bytes.readInt16BE(at + 21);
      if (attributes & TRANSACTIONAL) {
        for (; listed < aborted.length && aborted[listed]!.firstOffset <= lastOffset; listed++) {
          open.add(aborted[listed]!.producerId);
        }
      }
      const producerId = bytes.readBigInt64BE(at + 43);
      // Only a control batch is a marker: a data key may hold the very same bytes (S49).
      if (attributes & CONTROL) {
        if (bytes.readInt32BE(at + 57) > 0 && isAbortMarker(bytes, at)) open.delete(producerId);
      } else if (!(attributes & TRANSACTIONAL) || !open.has(producerId)) {
        readRecords(fetched, at, end, baseOffset, attributes, records);
      }
      nextOffset = lastOffset + 1;
    }
    at = end;
  }
  return { records, nextOffset };
}

function checkBatch(fetched: FetchedBytes, at: number, end: number, baseOffset: number): void {
  const { bytes, topic, partition } = fetched;
  const where = `${topic}-${partition} at offset ${baseOffset}`;
  if (bytes[at + 16] !== 2) {
    throw new KafkaError(
      'LOG_CORRUPT',
      `${where}: record format ${bytes[at + 16]}, only 2 is read. Rewrite the topic with Kafka 0.11 or later.`,
      { facts: { topic, partition, offset: baseOffset, magic: bytes[at + 16] } },
    );
  }
  if (crc32c(bytes.subarray(at + 21, end)) === bytes.readUInt32BE(at + 17)) return;
  throw new KafkaError(
    'LOG_CORRUPT',
    `${where}: the batch does not fit its CRC-32C. Check the broker’s disk and network; read from another replica or restore the topic.`,
    { facts: { topic, partition, offset: baseOffset } },
  );
}

/** The key of a marker is its version and its type: 0 aborts, 1 commits. */
function isAbortMarker(bytes: Buffer, batchAt: number): boolean {
  const reader = new ByteReader(bytes, batchAt + BATCH_HEADER_BYTES);
  reader.varint(); // size
  reader.int8(); // attributes
  reader.varint(); // timestamp
  reader.varint(); // offset
  reader.varint(); // key size
  return bytes.readInt16BE(reader.at + 2) === 0;
}

function readRecords(
  fetched: FetchedBytes,
  batchAt: number,
  batchEnd: number,
  baseOffset: number,
  attributes: number,
  records: LogRecord[],
): void {
  const { bytes, topic, partition, from } = fetched;
  const firstTimestamp = readInt64(bytes, batchAt + 27);
  const appendTimestamp = attributes & LOG_APPEND_TIME ? readInt64(bytes, batchAt + 35) : undefined;
  const codec = attributes & CODEC;
  const packed = batchAt + BATCH_HEADER_BYTES;
  const source = codec === 0 ? bytes : decompress(codec, bytes.subarray(packed, batchEnd));
  const reader = new ByteReader(source, codec === 0 ? packed : 0);
  for (let left = bytes.readInt32BE(batchAt + 57); left > 0; left--) {
    const size = reader.varint();
    const end = reader.at + size;
    reader.at++; // attributes
    const timestamp = firstTimestamp + reader.varint();
    const offset = baseOffset + reader.varint();
    // A batch is fetched whole, even when the position lies in its middle.
    if (offset >= from) {
      const key = readBytes(reader);
      const value = readBytes(reader);
      const headers = readHeaders(reader);
      records.push({ topic, partition, offset, timestamp: appendTimestamp ?? timestamp, key, value, headers });
    }
    reader.at = end;
  }
}

function readBytes(reader: ByteReader): Buffer | null {
  const length = reader.varint();
  if (length < 0) return null;
  const from = reader.at;
  reader.at += length;
  return reader.source.subarray(from, reader.at);
}

function readHeaders(reader: ByteReader): readonly Header[] {
  const count = reader.varint();
  if (count === 0) return NO_HEADERS;
  const headers: Header[] = [];
  for (let left = count; left > 0; left--) headers.push([readBytes(reader)!.toString('utf8'), readBytes(reader)]);
  return headers;
}
