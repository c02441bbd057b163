import type { Header, OutRecord, TopicPartition } from './log.js';

/**
 * Records of one partition as the bytes the log keeps them in: Kafka's record format (message format 2) without the batch around them,
 * offset deltas 0…count − 1, timestamp deltas 0. Written as one batch. The bytes are the log's until the transaction has its outcome.
 */
export interface RecordRun extends TopicPartition {
  readonly count: number;
  readonly bytes: Buffer;
  /** Of every record; milliseconds since 1970. */
  readonly timestampMs: number;
}

/** What a transaction takes: records one by one, or as runs; both keep the order given, per partition. */
export type LogInput = OutRecord | RecordRun;

export function isRun(input: LogInput): input is RecordRun {
  return 'bytes' in input;
}

/** An input as records. */
export function recordsOf(input: LogInput): readonly OutRecord[] {
  return isRun(input) ? decodeRun(input) : [input];
}

/** The records of a run, in order; keys, values and headers are views of its bytes. Throws a RangeError where the bytes are not a run. */
export function decodeRun({ topic, partition, count, bytes, timestampMs }: RecordRun): OutRecord[] {
  const records: OutRecord[] = [];
  const reader = new RunReader(bytes);
  while (reader.at < bytes.length)
    records.push({ topic, partition, ...readRecord(reader, records.length), timestamp: timestampMs });
  if (records.length !== count) throw new RangeError(`${records.length} records instead of ${count}`);
  return records;
}

/** The next record, which must be the nth of its run. */
export function readRecord(reader: RunReader, n: number): Required<Pick<OutRecord, 'key' | 'value' | 'headers'>> {
  const end = reader.varint() + reader.at;
  reader.at += 1; // attributes
  if (reader.varint() !== 0 || reader.varint() !== n) throw new RangeError('deltas are out of order');
  const key = reader.bytes();
  const value = reader.bytes();
  const headers: Header[] = [];
  for (let left = reader.varint(); left > 0; left--) {
    const name = reader.bytes();
    if (name === null) throw new RangeError('a header has no name');
    headers.push([name.toString(), reader.bytes()]);
  }
  if (reader.at !== end) throw new RangeError('a record does not end where its length says');
  return { key, value, headers };
}

/** Reads the fields of records in message format 2. Throws a RangeError past the end. */
export class RunReader {
  constructor(
    private readonly source: Buffer,
    public at = 0,
  ) {}

  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.source[this.at++];
      if (byte === undefined) break;
      value |= (byte & 127) << shift;
      if (byte < 128) return (value >>> 1) ^ -(value & 1);
    }
    throw new RangeError('varint past its end');
  }

  /** `null` for the length −1. */
  bytes(): Buffer | null {
    const length = this.varint();
    if (length === -1) return null;
    const from = this.at;
    this.at += length;
    if (length < 0 || this.at > this.source.length) throw new RangeError('bytes past the end');
    return this.source.subarray(from, this.at);
  }
}
