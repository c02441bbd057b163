import type { Tuple } from './pgoutput.js';

/** Lengths that stand for no text: SQL NULL, and an unchanged TOAST value that was not sent. */
export const NULL = -1;
export const UNCHANGED = -2;

/** The columns of one row as spans of the bytes they arrived in; used again for the next row. */
export class RowSpans {
  bytes: Buffer = NOTHING;
  count = 0;
  /** A column was not sent. */
  partial = false;
  /** Only the columns of the replica identity are told; the others are NULL. */
  isKey = false;
  starts = new Int32Array(32);
  lengths = new Int32Array(32);

  /** Reads a TupleData of pgoutput at `at`, not past `end`. Returns where it ends. Throws a RangeError. */
  read(bytes: Buffer, at: number, end: number): number {
    if (at + 2 > end) throw missing(at + 2 - end);
    const count = (bytes[at]! << 8) | bytes[at + 1]!;
    this.begin(bytes, count);
    at += 2;
    const { starts, lengths } = this;
    for (let i = 0; i < count; i++) {
      if (at >= end) throw missing(1);
      const kind = bytes[at++];
      if (kind === 0x74) {
        if (at + 4 > end) throw missing(at + 4 - end);
        const length = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
        at += 4;
        if (length > end - at) throw missing(length - (end - at));
        starts[i] = at;
        lengths[i] = length;
        at += length;
      } else if (kind === 0x6e) lengths[i] = NULL;
      else if (kind === 0x75) {
        lengths[i] = UNCHANGED;
        this.partial = true;
      } else throw new RangeError(`unknown column kind ${kind}`);
    }
    return at;
  }

  /** Takes texts instead. */
  fill(texts: Tuple): this {
    const parts = texts.map((text) => Buffer.from(text ?? ''));
    this.begin(Buffer.concat(parts), texts.length);
    let at = 0;
    for (const [i, text] of texts.entries()) {
      this.set(i, at, text === null ? NULL : text === undefined ? UNCHANGED : parts[i]!.length);
      at += parts[i]!.length;
    }
    return this;
  }

  /** Empties it for `count` columns of `bytes`, each to be `set`. */
  begin(bytes: Buffer, count: number): void {
    this.bytes = bytes;
    this.count = count;
    this.partial = false;
    if (count <= this.starts.length) return;
    this.starts = new Int32Array(2 * count);
    this.lengths = new Int32Array(2 * count);
  }

  set(column: number, start: number, length: number): void {
    this.starts[column] = start;
    this.lengths[column] = length;
    if (length === UNCHANGED) this.partial = true;
  }

  /** Takes what was not sent from another image of the row, of the same bytes. */
  fillFrom(image: RowSpans): void {
    this.partial = false;
    for (let i = 0; i < this.count; i++)
      if (this.lengths[i] === UNCHANGED) this.set(i, image.starts[i]!, image.lengths[i]!);
  }

  texts(): Tuple {
    return Array.from({ length: this.count }, (_, i) => {
      const length = this.lengths[i]!;
      if (length === NULL) return null;
      if (length === UNCHANGED) return undefined;
      return this.bytes.toString('utf8', this.starts[i], this.starts[i]! + length);
    });
  }
}

const NOTHING = Buffer.alloc(0);

function missing(count: number): RangeError {
  return new RangeError(`${count} bytes are missing`);
}
