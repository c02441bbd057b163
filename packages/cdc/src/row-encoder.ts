import { murmur2, putVarint, varintSize } from '@headwater/core';
import type { OpenRun, TopicRuns } from '@headwater/core';
import {
  jsonStringRoom,
  putBoolean,
  putBytes,
  putDigits,
  putFloat,
  putInteger,
  putJson,
  putJsonString,
  putTime,
  putTimestamp,
} from './json-bytes.js';
import { excluded } from './column-rules.js';
import { scalarForm } from './json-types.js';
import type { ScalarForm } from './json-types.js';
import { KeyBytes } from './key-bytes.js';
import { placeOf } from './place.js';
import { NULL, UNCHANGED } from './row-spans.js';
import type { RowSpans } from './row-spans.js';
import type { Operation, TableShape } from './rows.js';
import type { SourceBlock } from './source-block.js';

/** No partition of its own: the key decides. */
const BY_KEY = -1;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const NULL_JSON = Buffer.from('null');
const [OP, SEQ, UNCHANGED_NAME] = ['hw_op', 'hw_seq', 'hw_unchanged'].map((name) =>
  Buffer.from([name.length * 2, ...Buffer.from(name)]),
);
/** Headers beside those of the source and the table: count, hw_op, hw_seq. */
const HEADER_BYTES = 40;
/** Room beyond the text of a value: quotes, the fraction of a time, `null`. */
const SLACK = 16;
/** Up to this much text a row gets room for the worst case without a look at it. */
const SMALL_ROW = 4_096;

/**
 * Writes the rows of one table, as it is shaped at this moment, into runs: from spans of text to the bytes of a record, by the table in
 * CONTRACT 5, with no object per row. The stream and snapshots use the same one, so that a row has the same bytes by either way.
 */
export class RowEncoder {
  readonly #key: KeyBytes;
  /** The last upsert had another place before; also where it threw a RangeError for a value, the tombstone being added. */
  moved = false;
  readonly #before: KeyBytes;
  /** Undefined: partitioned by key. */
  readonly #route: KeyBytes | undefined;
  #partition = BY_KEY;
  #partitionBefore = BY_KEY;
  readonly #names: readonly Buffer[];
  readonly #forms: readonly (ScalarForm | 'excluded')[];
  readonly #table: Buffer;
  readonly #hasOthers: boolean;
  /** Values that only their text encoder can write, of the row at hand. */
  readonly #others: Buffer[] = [];
  readonly #fixed: number;

  constructor(
    readonly shape: TableShape,
    readonly runs: TopicRuns,
  ) {
    this.#key = new KeyBytes(shape.key, { first: shape.keyFirst });
    this.#before = new KeyBytes(shape.key, { first: shape.keyFirst });
    this.#route = shape.route && new KeyBytes(shape.route, { nullable: true });
    this.#names = shape.columns.map(({ name }) => Buffer.from(`,${JSON.stringify(name)}:`));
    this.#forms = shape.columns.map(({ encode }) => (encode === excluded ? 'excluded' : scalarForm(encode)));
    this.#hasOthers = this.#forms.includes('other');
    this.#table = headerBytes(shape);
    this.#fixed = this.#names.reduce((sum, name) => sum + name.length, 2);
  }

  /**
   * Adds the row as an upsert, and before it a tombstone for `old` when that has another key or lies in another partition. `row.partial` columns are
   * left out and named in hw_unchanged. Returns how many records were added; 0: key or partition are not told.
   */
  upsert(op: Operation, row: RowSpans, old: RowSpans | undefined, source: SourceBlock, seq: number): 0 | 1 | 2 {
    const key = this.#key;
    if (!key.read(row, old)) return 0;
    if (this.#route !== undefined && !this.#routed(op, this.#route, row, old)) return 0;
    const moved =
      old !== undefined &&
      this.#before.read(old) &&
      (this.#partition !== this.#partitionBefore || !this.#before.equals(key));
    this.moved = moved;
    if (moved) this.#tombstone(this.#before, this.#partitionBefore, 'd', source, seq);
    this.#upsert(op, row, source, moved ? seq + 1 : seq);
    return moved ? 2 : 1;
  }

  /** Adds a tombstone; false: key or partition are not told. */
  tombstone(op: Operation, row: RowSpans, source: SourceBlock, seq: number): boolean {
    if (!this.#key.read(row)) return false;
    if (this.#route !== undefined && (this.#partition = this.#partitionOf(this.#route, row)) === BY_KEY) return false;
    this.#tombstone(this.#key, this.#partition, op, source, seq);
    return true;
  }

  /** What the last record was written under. */
  get place(): string {
    return this.#placeOf(this.#key, this.#partition);
  }

  /** The tombstone before the last upsert, when that moved the row. */
  get placeBefore(): string {
    return this.#placeOf(this.#before, this.#partitionBefore);
  }

  #placeOf(key: KeyBytes, partition: number): string {
    return partition === BY_KEY ? key.toString() : placeOf(key.toString(), partition, this.runs.partitions);
  }

  /** Takes the partitions of the row now and before. False: they are not told. */
  #routed(op: Operation, route: KeyBytes, row: RowSpans, old: RowSpans | undefined): boolean {
    if (op === 'u' && old === undefined && this.shape.tellsOld) return false;
    this.#partition = this.#partitionOf(route, row, old);
    this.#partitionBefore = old === undefined ? this.#partition : this.#partitionOf(route, old);
    return this.#partition !== BY_KEY && this.#partitionBefore !== BY_KEY;
  }

  #partitionOf(route: KeyBytes, row: RowSpans, image?: RowSpans): number {
    if (!route.read(row, image)) return BY_KEY;
    return (murmur2(route.bytes, route.from, route.to) & 0x7fffffff) % this.runs.partitions;
  }

  #runOf({ bytes, from, to }: KeyBytes, partition: number): OpenRun {
    return partition === BY_KEY ? this.runs.runFor(bytes, from, to) : this.runs.run(partition);
  }

  #tombstone(key: KeyBytes, partition: number, op: Operation, source: SourceBlock, seq: number): void {
    const { from, to } = key;
    const run = this.#runOf(key, partition);
    run.begin(key.bytes, from, to, 0, this.#headerRoom(source, NO_BYTES));
    this.#finish(run, run.tombstone(), op, source, seq, NO_BYTES);
  }

  #upsert(op: Operation, row: RowSpans, source: SourceBlock, seq: number): void {
    const key = this.#key;
    const unchanged = row.partial ? this.#unchanged(row) : NO_BYTES;
    const guess = this.#fixed + this.#textLength(row);
    const room = this.#room(row, guess);
    const run = this.#runOf(key, this.#partition);
    const at = run.begin(key.bytes, key.from, key.to, guess, room + this.#headerRoom(source, unchanged));
    const end = this.#value(run.bytes, at, row);
    this.#finish(run, run.value(end), op, source, seq, unchanged);
  }

  #textLength({ lengths, count }: RowSpans): number {
    let length = 2 * count;
    for (let i = 0; i < count; i++) if (lengths[i]! > 0) length += lengths[i]!;
    return length;
  }

  #room(row: RowSpans, guess: number): number {
    const fixed = this.#fixed + SLACK * row.count;
    if (!this.#hasOthers && guess <= SMALL_ROW) return fixed + 6 * guess;
    let room = fixed;
    for (let i = 0; i < row.count; i++) {
      const length = row.lengths[i]!;
      if (length < 0 || this.#forms[i] === 'excluded') continue;
      const start = row.starts[i]!;
      if (this.#forms[i] === 'other') {
        const { encode } = this.shape.columns[i]!;
        this.#others[i] = Buffer.from(encode(row.bytes.toString('utf8', start, start + length)));
        room += this.#others[i]!.length;
      } else room += jsonStringRoom(row.bytes, start, start + length);
    }
    return room;
  }

  #value(target: Buffer, start: number, row: RowSpans): number {
    const { starts, lengths, bytes } = row;
    let at = start;
    target[at++] = OPEN;
    for (let i = 0; i < row.count; i++) {
      const length = lengths[i]!;
      const form = this.#forms[i];
      if (length === UNCHANGED || form === 'excluded') continue;
      at = putBytes(target, at, this.#names[i]!, at === start + 1 ? 1 : 0);
      if (length === NULL) {
        at = putBytes(target, at, NULL_JSON, 0);
        continue;
      }
      const from = starts[i]!;
      const to = from + length;
      switch (form) {
        case 'string':
          at = putJsonString(target, at, bytes, from, to);
          break;
        case 'integer':
          at = putInteger(target, at, bytes, from, to);
          break;
        case 'timestamp':
          at = putTimestamp(target, at, bytes, from, to);
          break;
        case 'boolean':
          at = putBoolean(target, at, bytes, from, to);
          break;
        case 'float':
          at = putFloat(target, at, bytes, from, to);
          break;
        case 'json':
          at = putJson(target, at, bytes, from, to);
          break;
        case 'time':
          at = putTime(target, at, bytes, from, to);
          break;
        default:
          at += this.#others[i]!.copy(target, at);
      }
    }
    target[at++] = CLOSE;
    return at;
  }

  #headerRoom(source: SourceBlock, unchanged: Buffer): number {
    const { lsnLength, txTsLength, context } = source;
    return HEADER_BYTES + lsnLength + txTsLength + this.#table.length + context.length + unchanged.length;
  }

  /** In the order: hw_op, hw_lsn, hw_seq, hw_tx, hw_ts, hw_table, the context of the transaction, hw_unchanged. */
  #finish(run: OpenRun, start: number, op: Operation, source: SourceBlock, seq: number, unchanged: Buffer): void {
    const target = run.bytes;
    let at = start;
    const { lsn, lsnLength, txTs, txTsLength, context, contextCount } = source;
    at = putVarint(target, at, 6 + contextCount + (unchanged.length > 0 ? 1 : 0));
    at = putBytes(target, at, OP!, 0);
    target[at++] = 2;
    target[at++] = op.charCodeAt(0);
    for (let i = 0; i < lsnLength; i++) target[at++] = lsn[i]!;
    at = putBytes(target, at, SEQ!, 0);
    const lengthAt = at++;
    at = putDigits(target, at, seq);
    target[lengthAt] = (at - lengthAt - 1) * 2;
    for (let i = 0; i < txTsLength; i++) target[at++] = txTs[i]!;
    at = putBytes(target, at, this.#table, 0);
    at = putBytes(target, at, context, 0);
    at = putBytes(target, at, unchanged, 0);
    this.runs.added(run, run.end(at));
  }

  /** The header that names what was not sent. */
  #unchanged(row: RowSpans): Buffer {
    const missing = (i: number) => row.lengths[i] === UNCHANGED && this.#forms[i] !== 'excluded';
    const names = this.shape.columns.filter((_, i) => missing(i)).map(({ name }) => name);
    if (names.length === 0) return NO_BYTES;
    const text = Buffer.from(JSON.stringify(names));
    const length = Buffer.alloc(varintSize(text.length));
    putVarint(length, 0, text.length);
    return Buffer.concat([UNCHANGED_NAME!, length, text]);
  }
}

const NO_BYTES = Buffer.alloc(0);

function headerBytes({ header: [name, value] }: TableShape): Buffer {
  const parts = [Buffer.from(name), value!].map((bytes) => {
    const length = Buffer.alloc(varintSize(bytes.length));
    putVarint(length, 0, bytes.length);
    return Buffer.concat([length, bytes]);
  });
  return Buffer.concat(parts);
}
