import { partitionOf } from '@headwater/core';
import type { OutRecord } from '@headwater/core';
import { formatLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import { placeNamed, placeOf } from '../place.js';
import type { Tuple } from '../pgoutput.js';
import {
  inPartition,
  invalidValue,
  keyText,
  recordOf,
  routeText,
  rowJson,
  rowTexts,
  sourceHeaders,
  tombstone,
} from '../rows.js';
import type { TableShape } from '../rows.js';
import { parseCopyRow } from './copy-row.js';

/** A record made from a row; `refused` says why it cannot be published, its value being what can be told of the row. */
export type ChunkRecord = OutRecord & { readonly refused?: unknown };

/** The rows of one read, encoded as they came, until their high watermark passes in the stream. One piece of memory holds all their values. */
export class Chunk {
  readonly keys: string[] = [];
  readMicros = 0n;
  /** Key columns of the last row. */
  last: readonly string[] | null = null;
  #values = Buffer.allocUnsafeSlow(64 * 1024);
  #used = 0;
  readonly #ends: number[] = [];
  readonly #partitions: (number | undefined)[] = [];
  readonly #refused = new Map<number, unknown>();

  /**
   * `partitions`: of its topic; counts only where other columns than the key choose one. `onInvalid`: what becomes of a row with a value that its type
   * never prints; `throw`: CDC_VALUE_INVALID.
   */
  constructor(
    readonly shape: TableShape,
    private readonly partitions: number,
    private readonly onInvalid: 'throw' | 'refuse' = 'throw',
  ) {}

  /** Of all values. */
  get bytes(): number {
    return this.#used;
  }

  /** Adds a row as COPY printed it. */
  add(line: Buffer): void {
    const row = parseCopyRow(line, this.shape.columns.length);
    const key = keyText(this.shape, row);
    if (key === undefined) throw new RangeError(`row of ${this.shape.table} without key`);
    this.#append(this.#json(row));
    this.keys.push(key);
    const route = routeText(this.shape, row);
    this.#partitions.push(route === undefined ? undefined : partitionOf(Buffer.from(route), this.partitions));
    this.last = this.shape.key.map((i) => row[i]!);
  }

  /** The records of all rows but those whose place the stream has told; `hw_seq` from 0 without a gap. */
  *records(lsn: Lsn, isTold: (place: string) => boolean): Iterable<ChunkRecord> {
    const source = snapshotHeaders(lsn, this.readMicros);
    let [seq, from] = [0, 0];
    for (const [i, key] of this.keys.entries()) {
      const to = this.#ends[i]!;
      const partition = this.#partitions[i];
      const place = partition === undefined ? key : placeOf(key, partition, this.partitions);
      if (!isTold(place)) {
        const value = this.#values.subarray(from, to);
        const record = inPartition(recordOf(this.shape, 'r', key, value, source, seq++), partition);
        yield this.#refused.has(i) ? { ...record, refused: this.#refused.get(i) } : record;
      }
      from = to;
    }
  }

  /** Of the row that is added next. */
  #json(row: Tuple): string {
    try {
      return rowJson(this.shape, row);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const { json, refused } = rowTexts(this.shape, row);
      const invalid = invalidValue(this.shape, refused, error);
      if (this.onInvalid === 'throw') throw invalid;
      this.#refused.set(this.keys.length, invalid);
      return json;
    }
  }

  #append(json: string): void {
    // A character of UTF-16 is at most three bytes of UTF-8.
    const most = this.#used + 3 * json.length;
    if (most > this.#values.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(most, 2 * this.#values.length));
      this.#values.copy(larger, 0, 0, this.#used);
      this.#values = larger;
    }
    this.#used += this.#values.write(json, this.#used);
    this.#ends.push(this.#used);
  }
}

/** Tombstones for keys that the table has lost. */
export function* leftoverRecords(
  shape: TableShape,
  places: Iterable<string>,
  lsn: Lsn,
  micros: bigint,
): Iterable<OutRecord> {
  const source = snapshotHeaders(lsn, micros);
  let seq = 0;
  for (const { key, partition } of [...places].map(placeNamed))
    yield inPartition(tombstone(shape, key, source, seq++), partition);
}

function snapshotHeaders(lsn: Lsn, micros: bigint) {
  const text = formatLsn(lsn);
  return sourceHeaders(text, `snapshot-${text}`, micros);
}
