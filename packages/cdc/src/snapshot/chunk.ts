import type { OutRecord } from '@headwater/core';
import { formatLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import { keyText, recordOf, rowJson, sourceHeaders, tombstone } from '../rows.js';
import type { TableShape } from '../rows.js';
import { parseCopyRow } from './copy-row.js';

/** The rows of one read, encoded as they came, until their high watermark passes in the stream. */
export class Chunk {
  readonly keys: string[] = [];
  bytes = 0;
  readMicros = 0n;
  /** Key columns of the last row. */
  last: readonly string[] | null = null;
  readonly #values: Buffer[] = [];

  constructor(readonly shape: TableShape) {}

  /** Adds a row as COPY printed it. */
  add(line: Buffer): void {
    const row = parseCopyRow(line, this.shape.columns.length);
    const key = keyText(this.shape, row);
    if (key === undefined) throw new RangeError(`row of ${this.shape.table} without key`);
    const value = Buffer.from(rowJson(this.shape, row));
    this.keys.push(key);
    this.#values.push(value);
    this.bytes += value.length;
    this.last = this.shape.key.map((i) => row[i]!);
  }

  /** The records of all rows but those whose key changed since; `hw_seq` from 0 without a gap. */
  *records(lsn: Lsn, changed: ReadonlySet<string>): Iterable<OutRecord> {
    const source = snapshotHeaders(lsn, this.readMicros);
    let seq = 0;
    for (let i = 0; i < this.keys.length; i++) {
      const key = this.keys[i]!;
      if (!changed.has(key)) yield recordOf(this.shape, 'r', key, this.#values[i]!, source, seq++);
    }
  }
}

/** Tombstones for keys that the table has lost. */
export function* leftoverRecords(
  shape: TableShape,
  keys: Iterable<string>,
  lsn: Lsn,
  micros: bigint,
): Iterable<OutRecord> {
  const source = snapshotHeaders(lsn, micros);
  let seq = 0;
  for (const key of keys) yield tombstone(shape, key, source, seq++);
}

function snapshotHeaders(lsn: Lsn, micros: bigint) {
  const text = formatLsn(lsn);
  return sourceHeaders(text, `snapshot-${text}`, micros);
}
