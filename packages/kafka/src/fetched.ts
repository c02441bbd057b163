import { crc32c } from '@node-rs/crc32';
import { BATCH_HEADER_BYTES, bufferView, type Header, type LogRecord } from '@headwater/core';
import { readInt64 } from './bytes.js';
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
}

export interface DecodedBatches {
  readonly records: LogRecord[];
  /** What the batches read take when they are unpacked. */
  readonly unpackedBytes: number;
}

const CODEC = 7;
const LOG_APPEND_TIME = 8;
const TRANSACTIONAL = 16;
const CONTROL = 32;
const MAGIC_AT = 16;
const NO_HEADERS: readonly Header[] = [];

/**
 * The committed records from `from` on. Records of aborted transactions and markers are left out; a batch cut off at the end is left for the next fetch. Keys
 * and values are views of `bytes`.
 */
export class FetchedRecords {
  readonly #fetched: FetchedBytes;
  /** The broker lists them in the order they ended; the filter opens them in the order they began. */
  readonly #aborted: readonly AbortedTransaction[];
  readonly #open = new Set<bigint>();
  #listed = 0;
  #at = 0;
  #nextOffset: number;
  #done = false;

  constructor(fetched: FetchedBytes) {
    this.#fetched = fetched;
    this.#aborted = [...fetched.aborted].sort((a, b) => a.firstOffset - b.firstOffset);
    this.#nextOffset = fetched.from;
  }

  /** The offset behind what was read. */
  get nextOffset(): number {
    return this.#nextOffset;
  }

  /** Nothing more can be read of these bytes. */
  get done(): boolean {
    return this.#done;
  }

  /** As they were fetched: not unpacked. */
  get leftBytes(): number {
    return this.#fetched.bytes.length - this.#at;
  }

  /**
   * The next batches; the one that fills `maxUnpackedBytes` is the last. What stands before a batch that cannot be read is given first; then this throws LOG_CORRUPT with topic, partition and
   * offset, or LOG_CODEC_MISSING.
   */
  read(maxUnpackedBytes = Infinity): DecodedBatches {
    const records: LogRecord[] = [];
    const from = this.#at;
    let unpackedBytes = 0;
    while (!this.#done && unpackedBytes < maxUnpackedBytes) {
      const whole = records.length;
      try {
        unpackedBytes += this.#readBatch(records);
      } catch (error) {
        records.length = whole;
        if (this.#at === from) throw error;
        break;
      }
    }
    return { records, unpackedBytes };
  }

  /** Returns how many bytes were unpacked. */
  #readBatch(records: LogRecord[]): number {
    const fetched = this.#fetched;
    const { bytes, before = Infinity } = fetched;
    const at = this.#at;
    if (at + MAGIC_AT >= bytes.length) return this.#end();
    const baseOffset = readInt64(bytes, at);
    const end = at + 12 + bytes.readInt32BE(at + 8);
    checkFrame(fetched, at, end, at === 0 ? fetched.from : baseOffset);
    if (end > bytes.length) return this.#end();
    checkSum(fetched, at, end, baseOffset);
    // lastOffsetDelta survives compaction; the last record's offset does not, and would read the same hole for ever.
    const lastOffset = baseOffset + bytes.readInt32BE(at + 23);
    // The base offset stands outside the CRC: a wrong one would move records, or skip them in silence.
    if ((at === 0 ? lastOffset : baseOffset) < this.#nextOffset || lastOffset < baseOffset) {
      throw corrupt(
        fetched,
        this.#nextOffset,
        `a batch claims the offsets ${baseOffset} to ${lastOffset}, out of order`,
      );
    }
    // Became stable after the broker looked, or claims offsets that do not exist: the next fetch tells.
    if (lastOffset >= before) return this.#end();
    let unpackedBytes = 0;
    try {
      unpackedBytes = this.#readSound(at, end, baseOffset, lastOffset, records);
    } catch (cause) {
      if (cause instanceof KafkaError) throw located(cause, fetched, baseOffset);
      throw corrupt(fetched, baseOffset, 'the batch fits its CRC-32C, and its records cannot be read', cause);
    }
    this.#nextOffset = lastOffset + 1;
    this.#at = end;
    this.#done = end === bytes.length;
    return unpackedBytes;
  }

  #readSound(at: number, end: number, baseOffset: number, lastOffset: number, records: LogRecord[]): number {
    const { bytes } = this.#fetched;
    const attributes = bytes.readInt16BE(at + 21);
    if (attributes & TRANSACTIONAL) this.#begin(lastOffset);
    const producerId = bytes.readBigInt64BE(at + 43);
    // Only a control batch is a marker: a data key may hold the very same bytes (S49).
    if (attributes & CONTROL) {
      if (bytes.readInt32BE(at + 57) > 0 && isAbortMarker(bytes, at)) this.#open.delete(producerId);
      return 0;
    }
    if (attributes & TRANSACTIONAL && this.#open.has(producerId)) return 0;
    return readRecords(this.#fetched, at, end, baseOffset, attributes, records);
  }

  /** Aborted transactions whose first record stands up to here. */
  #begin(lastOffset: number): void {
    for (; this.#listed < this.#aborted.length; this.#listed++) {
      const { firstOffset, producerId } = this.#aborted[this.#listed]!;
      if (firstOffset > lastOffset) return;
      this.#open.add(producerId);
    }
  }

  #end(): 0 {
    this.#done = true;
    return 0;
  }
}

/** Where reading will go on behind the whole batches of `bytes`, if they are sound: by their headers alone. */
export function endOfBatches(bytes: Buffer, from: number, before: number): number {
  let end = from;
  for (let at = 0; at + BATCH_HEADER_BYTES <= bytes.length;) {
    const batchEnd = at + 12 + bytes.readInt32BE(at + 8);
    const lastOffset = readInt64(bytes, at) + bytes.readInt32BE(at + 23);
    if (batchEnd > bytes.length || batchEnd <= at || lastOffset < end || lastOffset >= before) break;
    end = lastOffset + 1;
    at = batchEnd;
  }
  return end;
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
  if (crc32c(bufferView(bytes.buffer, bytes.byteOffset + at + 21, end - at - 21)) === bytes.readUInt32BE(at + 17))
    return;
  throw corrupt(fetched, offset, 'the batch does not fit its CRC-32C');
}

/** A codec does not know whose batch it is. */
function located(cause: KafkaError, { topic, partition }: FetchedBytes, offset: number): KafkaError {
  const said = cause.message.slice(`${cause.code}: `.length);
  const facts = { ...cause.facts, topic, partition, offset };
  return new KafkaError(cause.code, `${topic}-${partition} at offset ${offset}: ${said}`, { cause, facts });
}

function corrupt({ topic, partition }: FetchedBytes, offset: number, what: string, cause?: unknown): KafkaError {
  return new KafkaError(
    'LOG_CORRUPT',
    `${topic}-${partition} at offset ${offset}: ${what}. Check the broker’s disk and network; read from another replica or restore the topic.`,
    { cause, facts: { topic, partition, offset } },
  );
}

/**
 * Where what was read last ends. Given back beside the value, it would take an object for each; in another module, or as a field, it would be read from memory
 * each time (measured: a tenth of all that reading costs).
 */
let next = 0;

/** The key of a marker is its version and its type: 0 aborts, 1 commits. */
function isAbortMarker(bytes: Buffer, batchAt: number): boolean {
  readVarint(bytes, batchAt + BATCH_HEADER_BYTES); // size
  readVarint(bytes, next + 1); // timestamp, behind the attributes
  readVarint(bytes, next); // offset
  readVarint(bytes, next); // key size
  return bytes.readInt16BE(next + 2) === 0;
}

/** Of what records are read. `buffer` and `byteOffset` of a Buffer are calls: asked for each view, they would double what it costs. */
interface Memory {
  readonly bytes: Buffer;
  readonly buffer: ArrayBufferLike;
  readonly origin: number;
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
  const memory: Memory = { bytes: source, buffer: source.buffer, origin: source.byteOffset };
  const lastDelta = bytes.readInt32BE(batchAt + 23);
  let at = codec === 0 ? packed : 0;
  let previous = -1;
  for (let left = bytes.readInt32BE(batchAt + 57); left > 0; left--) {
    const size = readVarint(source, at);
    const end = next + size;
    if (size < 0 || end > source.length) throw new RangeError('a record ends past its batch');
    const timestamp = firstTimestamp + readVarint(source, next + 1); // behind the attributes
    const delta = readVarint(source, next);
    if (delta <= previous || delta > lastDelta) throw new RangeError('a record’s offset is out of order');
    previous = delta;
    const offset = baseOffset + delta;
    // A batch is fetched whole, even when the position lies in its middle.
    if (offset >= from) {
      const key = readBytes(memory, next, end);
      const value = readBytes(memory, next, end);
      // Most records have none, and no call to read them.
      let headers = NO_HEADERS;
      if (source[next] === 0) next++;
      else headers = readHeaders(memory, next, end);
      if (next !== end) throw new RangeError('a record does not end where it says');
      records.push({ topic, partition, offset, timestamp: appendTimestamp ?? timestamp, key, value, headers });
    }
    at = end;
  }
  return codec === 0 ? batchEnd - batchAt : source.length;
}

function readBytes({ bytes, buffer, origin }: Memory, at: number, end: number): Buffer | null {
  const length = readVarint(bytes, at);
  const from = next;
  if (length === -1) return null;
  next = from + length;
  if (length < 0 || next > end) throw new RangeError('a field ends past its record');
  return bufferView(buffer, origin + from, length);
}

function readHeaders(memory: Memory, at: number, end: number): readonly Header[] {
  const count = readVarint(memory.bytes, at);
  if (count < 0) throw new RangeError('a record has a negative number of headers');
  const headers: Header[] = [];
  for (let left = count; left > 0; left--) {
    const name = readBytes(memory, next, end);
    if (name === null) throw new RangeError('a header has no name');
    headers.push([name.toString('utf8'), readBytes(memory, next, end)]);
  }
  return headers;
}

/** Zigzag varint of at most ten bytes, exact up to 2^53, up to `next`. Throws RangeError past the end of `source`. */
export function readVarint(source: Buffer, at: number): number {
  // Past the end there is undefined, which is not less than 128 either.
  const first = source[at]!;
  if (first < 128) {
    next = at + 1;
    return (first >>> 1) ^ -(first & 1);
  }
  const second = source[at + 1]!;
  if (second < 128) {
    next = at + 2;
    const bits = (second << 7) | (first & 127);
    return (bits >>> 1) ^ -(bits & 1);
  }
  return readLongVarint(source, at);
}

function readLongVarint(source: Buffer, from: number): number {
  let value = 0;
  let at = from;
  let byte: number;
  let weight = 1;
  do {
    if (at >= source.length || weight > 2 ** 63) throw new RangeError('varint past its end');
    byte = source[at++]!;
    value += (byte & 127) * weight;
    weight *= 128;
  } while (byte & 128);
  next = at;
  return value % 2 ? -(value + 1) / 2 : value / 2;
}
