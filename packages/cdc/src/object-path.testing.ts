import type { OutRecord } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { decodePgoutput } from './pgoutput.js';
import type { OldTuple, Relation, Tuple } from './pgoutput.js';
import { filled, keyText, sourceHeaders, tombstone, upsert } from './rows.js';
import type { SourceHeaders, TableShape } from './rows.js';

/** What the stream means, told with an object for everything: slow and plain, to hold the assembler against. Rows that were not sent whole are left so. */
export class ObjectPath {
  readonly records: OutRecord[] = [];
  readonly #shapes = new Map<number, TableShape | undefined>();
  #open: { readonly lsn: Lsn; readonly source: SourceHeaders; seq: number } | undefined;

  constructor(private readonly shapeOf: (relation: Relation) => TableShape | undefined) {}

  accept(bytes: Buffer): void {
    const message = decodePgoutput(bytes, '0/0');
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
