import type { OutRecord } from './log.js';
import { readRecord, RunReader } from './record-run.js';
import type { BufferPool } from './buffer-pool.js';
import { putVarint, varintSize } from './varint.js';

/** What a record takes beside key, value and headers, at most: its length, attributes, two deltas, two lengths. */
const RECORD_OVERHEAD = 32;

/**
 * A run that is being written. A record is written in place: `begin`, the value's bytes at the position it returns, `value` or `tombstone`,
 * the header section at the position that returns, `end`. Until `end` nothing has been added.
 */
export class OpenRun {
  bytes: Buffer;
  length = 0;
  count = 0;
  /** The unit of its last record; where the run stood before that unit's first record. */
  unit = -1;
  cutBytes = 0;
  cutCount = 0;
  #bodyAt = 0;
  #valueAt = 0;
  #valueLengthAt = 0;

  constructor(
    private readonly buffers: BufferPool,
    readonly topic: string,
    readonly partition: number,
    capacity: number,
  ) {
    this.bytes = buffers.take(capacity);
  }

  /** Room for `room` bytes behind the position returned: the value and its headers. `guess`: how long the value will be about. */
  begin(key: Uint8Array | null, from: number, to: number, guess: number, room: number): number {
    const keyBytes = to - from;
    this.#reserve(this.length + RECORD_OVERHEAD + keyBytes + room);
    const { bytes } = this;
    // Guessed right nearly always; a wrong guess costs a move.
    this.#bodyAt = this.length + varintSize(16 + keyBytes + guess);
    let at = this.#bodyAt;
    bytes[at++] = 0; // attributes
    bytes[at++] = 0; // timestamp delta
    at = putVarint(bytes, at, this.count);
    if (key === null) bytes[at++] = 1;
    else {
      at = putVarint(bytes, at, keyBytes);
      for (let i = from; i < to; i++) bytes[at++] = key[i]!;
    }
    this.#valueLengthAt = at;
    return (this.#valueAt = at + varintSize(guess));
  }

  /** The value ends at `end`. Returns where the header section begins. */
  value(end: number): number {
    const length = end - this.#valueAt;
    const at = this.#valueLengthAt + varintSize(length);
    if (at !== this.#valueAt) this.bytes.copyWithin(at, this.#valueAt, end);
    putVarint(this.bytes, this.#valueLengthAt, length);
    return at + length;
  }

  /** There is no value. Returns where the header section begins. */
  tombstone(): number {
    this.bytes[this.#valueLengthAt] = 1;
    return this.#valueLengthAt + 1;
  }

  /** The record ends at `end` and is added. Returns its size. */
  end(end: number): number {
    const start = this.length;
    const body = end - this.#bodyAt;
    const at = start + varintSize(body);
    if (at !== this.#bodyAt) this.bytes.copyWithin(at, this.#bodyAt, end);
    putVarint(this.bytes, start, body);
    this.length = at + body;
    this.count += 1;
    return this.length - start;
  }

  /** Takes out the record that was added last, `bytes` long; what it returns is a copy. */
  takeLast(bytes: number): OutRecord {
    const { topic, partition } = this;
    const copy = Buffer.from(this.bytes.subarray(this.length - bytes, this.length));
    this.length -= bytes;
    this.count -= 1;
    return { topic, partition, ...readRecord(new RunReader(copy), this.count) };
  }

  /** Moves the records behind `cutBytes`, `cutCount` of them staying, into a run of their own. */
  moveTail(cutBytes: number, cutCount: number): OpenRun {
    const tail = new OpenRun(this.buffers, this.topic, this.partition, this.length - cutBytes);
    const reader = new RunReader(this.bytes, cutBytes);
    while (reader.at < this.length) {
      const end = reader.varint() + reader.at;
      reader.at += 2; // attributes, timestamp delta
      reader.varint(); // the offset delta it had
      const rest = end - reader.at;
      const target = tail.bytes;
      let at = putVarint(target, tail.length, 2 + varintSize(tail.count) + rest);
      target[at++] = 0;
      target[at++] = 0;
      at = putVarint(target, at, tail.count);
      this.bytes.copy(target, at, reader.at, end);
      tail.length = at + rest;
      tail.count += 1;
      reader.at = end;
    }
    this.length = cutBytes;
    this.count = cutCount;
    return tail;
  }

  #reserve(capacity: number): void {
    if (capacity <= this.bytes.length) return;
    const larger = this.buffers.take(Math.max(capacity, Math.min(2 * this.bytes.length, capacity + 1_048_576)));
    this.bytes.copy(larger, 0, 0, this.length);
    this.buffers.give(this.bytes);
    this.bytes = larger;
  }
}
