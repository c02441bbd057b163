import type { OutRecord } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { excluded } from './column-rules.js';
import { decoded, EPOCH_MICROS, rareBody } from './pgoutput.js';
import type { Column, Cursor, RareMessage, Relation, Tuple } from './pgoutput.js';
import { keyText, recordOf, rowJson, sourceHeaders, tombstone } from './rows.js';
import type { Operation, SourceHeaders, TableShape } from './rows.js';

type OldTuple = { readonly kind: 'key' | 'full'; readonly tuple: Tuple };

type Message =
  | { readonly type: 'begin'; readonly finalLsn: Lsn; readonly commitMicros: bigint; readonly xid: number }
  | { readonly type: 'commit'; readonly commitLsn: Lsn; readonly endLsn: Lsn; readonly commitMicros: bigint }
  | { readonly type: 'insert'; readonly relation: number; readonly row: Tuple }
  | { readonly type: 'update'; readonly relation: number; readonly old: OldTuple | undefined; readonly row: Tuple }
  | { readonly type: 'delete'; readonly relation: number; readonly old: OldTuple }
  | RareMessage;

/** What the stream means, told with an object for everything: slow and plain, to hold the assembler against. Rows that were not sent whole are left so. */
export class ObjectPath {
  readonly records: OutRecord[] = [];
  readonly #shapes = new Map<number, TableShape | undefined>();
  #open: { readonly lsn: Lsn; readonly source: SourceHeaders; seq: number } | undefined;

  constructor(private readonly shapeOf: (relation: Relation) => TableShape | undefined) {}

  /** Another one that has read the same, and holds no records. */
  copy(): ObjectPath {
    const copy = new ObjectPath(this.shapeOf);
    for (const [oid, shape] of this.#shapes) copy.#shapes.set(oid, shape);
    copy.#open = this.#open && { ...this.#open };
    return copy;
  }

  accept(bytes: Buffer): void {
    const message = decoded(bytes, '0/0', body);
    switch (message.type) {
      case 'begin': {
        if (this.#open !== undefined) throw refused();
        const { finalLsn: lsn, xid, commitMicros } = message;
        this.#open = { lsn, source: sourceHeaders(formatLsn(lsn), String(xid), commitMicros), seq: 0 };
        return;
      }
      case 'commit':
        if (this.#open?.lsn !== message.commitLsn) throw refused();
        this.#open = undefined;
        return;
      case 'relation':
        this.#shapes.set(message.oid, this.shapeOf(message));
        return;
      case 'insert':
        return this.#upsert(message.relation, 'c', undefined, message.row);
      case 'update':
        return this.#upsert(message.relation, 'u', message.old, message.row);
      case 'delete':
        return this.#delete(message.relation, message.old.tuple);
      case 'message':
        if (message.transactional !== (this.#open !== undefined)) throw refused();
        return;
      case 'truncate':
        throw refused();
      default:
    }
  }

  #upsert(oid: number, op: 'c' | 'u', old: OldTuple | undefined, row: Tuple): void {
    const open = this.#open;
    const shape = this.#shapes.get(oid);
    if (open === undefined || shape === undefined || row.length !== shape.columns.length) throw refused();
    if (old !== undefined && old.tuple.length !== row.length) throw refused();
    const image = old?.kind === 'full' ? filled(row, old.tuple) : row;
    const before = old === undefined ? undefined : keyText(shape, old.tuple);
    const key = keyText(shape, filled(image, old?.tuple ?? []));
    if (key === undefined || shape.key.length === 0) throw refused();
    // Also when the row behind it is refused: nothing of the transaction is published then.
    if (before !== undefined && before !== key) this.records.push(tombstone(shape, before, open.source, open.seq++));
    this.records.push(upsert(shape, op, key, image, open.source, open.seq));
    open.seq += 1;
  }

  #delete(oid: number, old: Tuple): void {
    const open = this.#open;
    const shape = this.#shapes.get(oid);
    if (open === undefined || shape === undefined || old.length !== shape.columns.length) throw refused();
    const key = keyText(shape, old);
    if (key === undefined || shape.key.length === 0) throw refused();
    this.records.push(tombstone(shape, key, open.source, open.seq++));
  }
}

function refused(): CaptureError {
  return new CaptureError('CDC_PROTOCOL', 'refused');
}

function body(tag: string, c: Cursor): Message {
  switch (tag) {
    case 'B':
      return { type: 'begin', finalLsn: c.lsn(), commitMicros: micros(c), xid: c.uint32() };
    case 'C':
      expectByte(c, 0);
      return { type: 'commit', commitLsn: c.lsn(), endLsn: c.lsn(), commitMicros: micros(c) };
    case 'I': {
      const oid = c.uint32();
      expectByte(c, 0x4e);
      return { type: 'insert', relation: oid, row: tuple(c) };
    }
    case 'U': {
      const oid = c.uint32();
      const kind = c.uint8();
      const old = kind === 0x4e ? undefined : oldTuple(kind, c);
      if (old !== undefined) expectByte(c, 0x4e);
      return { type: 'update', relation: oid, old, row: tuple(c) };
    }
    case 'D':
      return { type: 'delete', relation: c.uint32(), old: oldTuple(c.uint8(), c) };
    default:
      return rareBody(tag, c);
  }
}

const micros = (c: Cursor): bigint => BigInt.asIntN(64, c.lsn()) + EPOCH_MICROS;

function expectByte(c: Cursor, value: number): void {
  const found = c.uint8();
  if (found !== value) throw new RangeError(`found byte ${found} instead of ${value}`);
}

function oldTuple(kind: number, c: Cursor): OldTuple {
  if (kind === 0x4b) return { kind: 'key', tuple: tuple(c) };
  if (kind === 0x4f) return { kind: 'full', tuple: tuple(c) };
  throw new RangeError(`unknown tuple kind ${kind}`);
}

function tuple(c: Cursor): Tuple {
  const columns: Column[] = [];
  for (let left = c.uint16(); left > 0; left--) {
    const kind = c.uint8();
    if (kind === 0x74) columns.push(c.bytes(c.uint32()).toString());
    else if (kind === 0x6e) columns.push(null);
    else if (kind === 0x75) columns.push(undefined);
    else throw new RangeError(`unknown column kind ${kind}`);
  }
  return columns;
}

function upsert(
  shape: TableShape,
  op: Operation,
  key: string,
  row: Tuple,
  source: SourceHeaders,
  seq: number,
): OutRecord {
  const record = recordOf(shape, op, key, Buffer.from(rowJson(shape, row)), source, seq);
  const unchanged = unchangedColumns(shape, row);
  if (unchanged.length === 0) return record;
  return { ...record, headers: [...record.headers!, ['hw_unchanged', Buffer.from(JSON.stringify(unchanged))]] };
}

function unchangedColumns(shape: TableShape, row: Tuple): string[] {
  const names: string[] = [];
  for (const [i, { name, encode }] of shape.columns.entries())
    if (row[i] === undefined && encode !== excluded) names.push(name);
  return names;
}

/** The row with its unchanged TOAST values taken from an older or newer image of the same row. */
function filled(row: Tuple, image: Tuple): Tuple {
  return row.map((value, i): Column => (value === undefined ? image[i] : value));
}
