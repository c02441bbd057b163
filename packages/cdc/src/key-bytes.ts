import { isUtf8 } from 'node:buffer';
import { jsonStringRoom, putJsonString } from './json-bytes.js';
import { UNCHANGED } from './row-spans.js';
import type { RowSpans } from './row-spans.js';

/** The key text of a row, as bytes: the text of a single key column where it lies, or the JSON array of several. */
export class KeyBytes {
  bytes: Buffer = NOTHING;
  from = 0;
  to = 0;
  #scratch = Buffer.alloc(256);

  /** `columns`: indexes of the key columns, in key order. */
  constructor(private readonly columns: readonly number[]) {}

  /** Takes the key of a row, what was not sent from another image of it. False: a key column is missing or null. */
  read(row: RowSpans, image?: RowSpans): boolean {
    if (this.columns.length === 1) {
      const column = this.columns[0]!;
      const of = imageWith(column, row, image);
      if (of === undefined) return false;
      const length = of.lengths[column]!;
      this.bytes = of.bytes;
      this.from = of.starts[column]!;
      this.to = this.from + length;
      if (!isAscii(this)) this.#clean();
      return true;
    }
    let at = 0;
    for (const column of this.columns) {
      const of = imageWith(column, row, image);
      if (of === undefined) return false;
      const length = of.lengths[column]!;
      const start = of.starts[column]!;
      this.#reserve(at + 2 + jsonStringRoom(of.bytes, start, start + length), at);
      this.#scratch[at] = at === 0 ? 0x5b : 0x2c;
      at = putJsonString(this.#scratch, at + 1, of.bytes, start, start + length);
    }
    if (at === 0) return false;
    this.#scratch[at++] = 0x5d;
    this.bytes = this.#scratch;
    this.from = 0;
    this.to = at;
    return true;
  }

  equals({ bytes, from, to }: KeyBytes): boolean {
    return this.bytes.compare(bytes, from, to, this.from, this.to) === 0;
  }

  toString(): string {
    return this.bytes.toString('utf8', this.from, this.to);
  }

  /** Bytes of another encoding become replacement characters, as in the value. */
  #clean(): void {
    if (isUtf8(this.bytes.subarray(this.from, this.to))) return;
    this.bytes = Buffer.from(this.toString());
    this.from = 0;
    this.to = this.bytes.length;
  }

  #reserve(capacity: number, used: number): void {
    if (capacity <= this.#scratch.length) return;
    const larger = Buffer.alloc(2 * capacity);
    this.#scratch.copy(larger, 0, 0, used);
    this.#scratch = larger;
  }
}

const NOTHING = Buffer.alloc(0);

/** The image that tells the column's value; undefined when none does, or it is null. */
function imageWith(column: number, row: RowSpans, image: RowSpans | undefined): RowSpans | undefined {
  if (column < 0 || column >= row.count) return undefined;
  const of = row.lengths[column] === UNCHANGED ? image : row;
  return of !== undefined && column < of.count && of.lengths[column]! >= 0 ? of : undefined;
}

function isAscii({ bytes, from, to }: KeyBytes): boolean {
  for (let i = from; i < to; i++) if (bytes[i]! > 0x7f) return false;
  return true;
}
