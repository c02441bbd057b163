import { isUtf8 } from 'node:buffer';
import { jsonStringRoom, putJsonString } from './json-bytes.js';
import { NULL, UNCHANGED } from './row-spans.js';
import type { RowSpans } from './row-spans.js';

export interface KeyForm {
  /** Stands first, in an array also with a single column. */
  readonly first?: string | undefined;
  /** Columns may be NULL, which counts as the empty text. */
  readonly nullable?: boolean;
}

/** The key text of a row, as bytes: the text of a single key column where it lies, or the JSON array of several. */
export class KeyBytes {
  bytes: Buffer = NOTHING;
  from = 0;
  to = 0;
  #scratch = Buffer.alloc(256);
  readonly #first: Buffer;
  readonly #isBare: boolean;
  readonly #least: number;

  /** `columns`: indexes of the key columns, in key order. */
  constructor(
    private readonly columns: readonly number[],
    { first, nullable = false }: KeyForm = {},
  ) {
    this.#first = first === undefined ? NOTHING : Buffer.from(`[${JSON.stringify(first)}`);
    this.#isBare = columns.length === 1 && first === undefined;
    this.#least = nullable ? NULL : 0;
  }

  /** Takes the key of a row, what was not sent from another image of it. False: a key column is missing or null. */
  read(row: RowSpans, image?: RowSpans): boolean {
    if (this.#isBare) {
      const column = this.columns[0]!;
      const of = imageWith(column, row, image, this.#least);
      if (of === undefined) return false;
      const length = Math.max(0, of.lengths[column]!);
      this.bytes = of.bytes;
      this.from = length === 0 ? 0 : of.starts[column]!;
      this.to = this.from + length;
      if (!isAscii(this)) this.#clean();
      return true;
    }
    this.#reserve(this.#first.length + 1, 0);
    let at = this.#first.copy(this.#scratch);
    for (const column of this.columns) {
      const of = imageWith(column, row, image, this.#least);
      if (of === undefined) return false;
      const length = Math.max(0, of.lengths[column]!);
      const start = length === 0 ? 0 : of.starts[column]!;
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

/** The image that tells the column's value; undefined when none does, or it is null where it must not be. */
function imageWith(column: number, row: RowSpans, image: RowSpans | undefined, least: number): RowSpans | undefined {
  if (column < 0 || column >= row.count) return undefined;
  const of = row.lengths[column] === UNCHANGED ? image : row;
  if (of === undefined || column >= of.count) return undefined;
  // The row of a key has nulls where it tells nothing.
  return of.lengths[column]! >= (of.isKey ? 0 : least) ? of : undefined;
}

function isAscii({ bytes, from, to }: KeyBytes): boolean {
  for (let i = from; i < to; i++) if (bytes[i]! > 0x7f) return false;
  return true;
}
