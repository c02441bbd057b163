import { crc32c } from '@node-rs/crc32';
import { BATCH_HEADER_BYTES, type Header, type LogRecord } from '@headwater/core';
import { ByteReader, readInt64 } from './bytes.js';
import { decompress } from './codecs.js';
import { KafkaError } from './kafka.errors.js';

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
  /** The last stable offset as the broker told it. */
  readonly before?: number;
  readonly bytes: Buffer;
  readonly aborted: readonly AbortedTransaction[];
  /** Reading ends with the batch that fills it. Default: none. */
  readonly maxUnpackedBytes?: number;
}

export interface DecodedBatch {
  readonly records: LogRecord[];
  readonly nextOffset: number;
  /** What the batches read take when they are unpacked. */
  readonly unpackedBytes: number;
  /** What they took in the answer. */
  readonly packedBytes: number;
}

const CODEC = 7;
const LOG_APPEND_TIME = 8;
const TRANSACTIONAL = 16;
const CONTROL = 32;
const MAGIC_AT = 16;
const NO_HEADERS: readonly Header[] = [];

/**
 * The committed records from `from` on, and the offset to read next. Records of aborted transactions and markers are left out; a batch cut
 * off at the end is left for the next fetch. Keys and values are views of `bytes`. Throws LOG_CORRUPT or
 * LOG_CODEC_MISSING, the first with topic, partition and offset; then nothing of these bytes counts as read.
 */
export function decodeFetched(fetched: FetchedBytes): DecodedBatch {
  const { bytes, from, before = Infinity, maxUnpackedBytes = Infinity } = fetched;
  // The broker lists aborted transactions in the order they ended; the filter opens them in the order they began.
  const aborted = [...fetched.aborted].sort((a, b) => a.firstOffset - b.firstOffset);
  const open = new Set<bigint>();
  const records: LogRecord[] = [];
  let listed = 0;
  let nextOffset = from;
  let unpackedBytes = 0;
  let at = 0;
  while (at + MAGIC_AT < bytes.length && unpackedBytes < maxUnpackedBytes) {
    const baseOffset = readInt64(bytes, at);
    const end = at + 12 + bytes.readInt32BE(at + 8);
    checkFrame(fetched, at, end, at === 0 ? from : baseOffset);
    if (end > bytes.length) break;
    checkSum(fetched, at, end, baseOffset);
    // lastOffsetDelta survives compaction; the last record's offset does not, and would read the same hole for ever.
    const lastOffset = baseOffset + bytes.readInt32BE(at + 23);
    // The base offset stands outside the CRC: a wrong one would move records, or skip them in silence.
    if ((at === 0 ? lastOffset : baseOffset) < nextOffset || lastOffset < baseOffset) {
      throw corrupt(fetched, nextOffset, `a batch claims the offsets ${baseOffset} to ${lastOffset}, out of order`);
    }
    // Became stable after the broker looked, or claims offsets that do not exist: the next fetch tells.
    if (lastOffset >= before) break;
    const attributes = bytes.readInt16BE(at + 21);
    if (attributes & TRANSACTIONAL) {
      for (; listed < aborted.length && aborted[listed]!.firstOffset <= lastOffset; listed++) {
        open.add(aborted[listed]!.producerId);
      }
    }
    const producerId = bytes.readBigInt64BE(at + 43);
    try {
      // Only a control batch is a marker: a data key may hold the very same bytes (S49).
      if (attributes & CONTROL) {
        if (bytes.readInt32BE(at + 57) > 0 && isAbortMarker(bytes, at)) open.delete(producerId);
      } else if (!(attributes & TRANSACTIONAL) || !open.has(producerId)) {
        unpackedBytes += readRecords(fetched, at, end, baseOffset, attributes, records);
      }
    } catch (cause) {
      if (cause instanceof KafkaError) throw cause;
      throw corrupt(fetched, baseOffset, 'the batch fits its CRC-32C, and its records cannot be read', cause);
    }
    nextOffset = lastOffset + 1;
    at = end;
  }
  return { records, nextOffset, unpackedBytes, packedBytes: at };
}

/** Where reading will go on behind the whole batches of `bytes`, if they are sound: by their headers alone. */
export function endOfBatches(bytes: Buffer, from: number, before: number): number {
  let next = from;
  for (let at = 0; at + BATCH_HEADER_BYTES <= bytes.length;) {
    const end = at + 12 + bytes.readInt32BE(at + 8);
    const lastOffset = readInt64(bytes, at) + bytes.readInt32BE(at + 23);
    if (end > bytes.length || end <= at || lastOffset < next || lastOffset >= before) break;
    next = lastOffset + 1;
    at = end;
  }
  return next;
}

function checkFrame(fetched: FetchedBytes, at: number, end: number, offset: number): void {
  const { bytes, topic, partition } = fetched;
  const magic = bytes[at + MAGIC_AT];
  if (magic !== 2) {
    throw new KafkaError(
      'LOG_CORRUPT',
      `${topic}-${partition} at offset ${offset}: record format ${magic}, only 2 is read. Rewrite the topic with Kafka 0.11 or later.`,
      { facts: { topic, partition, offset, magic } },
    );
  }
  if (end - at < BATCH_HEADER_BYTES) throw corrupt(fetched, offset, `a batch claims a size of ${end - at} bytes`);
  // A broker cuts the last batch of an answer, never the first (KIP-74): waiting for the rest would wait for ever.
  if (at === 0 && end > bytes.length) throw corrupt(fetched, offset, 'the first batch is cut off');
}

function checkSum(fetched: FetchedBytes, at: number, end: number, offset: number): void {
  const { bytes } = fetched;
  if (crc32c(bytes.subarray(at + 21, end)) === bytes.readUInt32BE(at + 17)) return;
  throw corrupt(fetched, offset, 'the batch does not fit its CRC-32C');
}

function corrupt({ topic, partition }: FetchedBytes, offset: number, what: string, cause?: unknown): KafkaError {
  return new KafkaError(
    'LOG_CORRUPT',
    `${topic}-${partition} at offset ${offset}: ${what}. Check the broker’s disk and network; read from another replica or restore the topic.`,
    { cause, facts: { topic, partition, offset } },
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
): number {
  const { bytes, topic, partition, from } = fetched;
  const firstTimestamp = readInt64(bytes, batchAt + 27);
  const appendTimestamp = attributes & LOG_APPEND_TIME ? readInt64(bytes, batchAt + 35) : undefined;
  const codec = attributes & CODEC;
  const packed = batchAt + BATCH_HEADER_BYTES;
  const source = codec === 0 ? bytes.subarray(0, batchEnd) : decompress(codec, bytes.subarray(packed, batchEnd));
  const reader = new ByteReader(source, codec === 0 ? packed : 0);
  const lastDelta = bytes.readInt32BE(batchAt + 23);
  let previous = -1;
  for (let left = bytes.readInt32BE(batchAt + 57); left > 0; left--) {
    const size = reader.varint();
    const end = reader.at + size;
    if (size < 0 || end > source.length) throw new RangeError('a record ends past its batch');
    reader.at++; // attributes
    const timestamp = firstTimestamp + reader.varint();
    const delta = reader.varint();
    if (delta <= previous || delta > lastDelta) throw new RangeError('a record’s offset is out of order');
    previous = delta;
    const offset = baseOffset + delta;
    // A batch is fetched whole, even when the position lies in its middle.
    if (offset >= from) {
      const key = readBytes(reader, end);
      const value = readBytes(reader, end);
      const headers = readHeaders(reader, end);
      if (reader.at !== end) throw new RangeError('a record does not end where it says');
      records.push({ topic, partition, offset, timestamp: appendTimestamp ?? timestamp, key, value, headers });
    }
    reader.at = end;
  }
  return codec === 0 ? batchEnd - batchAt : source.length;
}

function readBytes(reader: ByteReader, end: number): Buffer | null {
  const length = reader.varint();
  if (length === -1) return null;
  if (length < 0 || reader.at + length > end) throw new RangeError('a field ends past its record');
  return reader.view(length);
}

function readHeaders(reader: ByteReader, end: number): readonly Header[] {
  const count = reader.varint();
  if (count === 0) return NO_HEADERS;
  if (count < 0) throw new RangeError('a record has a negative number of headers');
  const headers: Header[] = [];
  for (let left = count; left > 0; left--) {
    const name = readBytes(reader, end);
    if (name === null) throw new RangeError('a header has no name');
    headers.push([name.toString('utf8'), readBytes(reader, end)]);
  }
  return headers;
}
