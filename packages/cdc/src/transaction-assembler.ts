import type { OutRecord } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { CONTEXT_PREFIX, contextHeaders, invalidMessage, OUTBOX_PREFIX, outboxRecord } from './outbox-message.js';
import type { LogicalMessage, OldTuple, PgMessage, Relation, Tuple } from './pgoutput.js';
import { filled, keyText, sourceHeaders, tombstone, upsert } from './rows.js';
import type { SourceHeaders, TableShape } from './rows.js';
import { SIGNAL_PREFIX, WATERMARK_PREFIX } from './snapshot-window.js';
import type { SnapshotWindow } from './snapshot-window.js';

/** How far complete source transactions reach. */
export interface Progress {
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
  readonly xid: number;
  /** Snapshots that are unfinished from here on; absent: the same as before. */
  readonly snapshots?: readonly string[];
  /** How far snapshots are: written with the position. */
  readonly states?: readonly OutRecord[];
}

/** Where the assembler puts what it made. */
export interface Sink {
  add(record: OutRecord): void;
  /** Everything added so far belongs to complete source transactions. */
  complete(progress: Progress): void;
  /** A message that is not ours, or with our prefix and not what the outbox writes: then `error` says why. */
  ignored(error?: CaptureError): void;
}

/** What the assembler has to ask the world. */
export interface TableLookup {
  /** The shape of a published table; undefined when it is not captured. Throws CDC_KEY_CHANGED. */
  shape(relation: Relation): Promise<TableShape | undefined>;
  /** The row with this key, as text in the order of the columns, as transaction `xid` left it or later ones; undefined when it is gone. */
  readRow(shape: TableShape, key: Tuple, xid: number): Promise<Tuple | undefined>;
}

/** Opens a message of ours; undefined when the outbox did not write it. */
export interface MessageOpener {
  open(message: LogicalMessage, xid: number | undefined): Buffer | Promise<Buffer | undefined>;
}

const TAKEN_AT_ITS_WORD: MessageOpener = { open: (message) => message.content };

interface Open {
  readonly finalLsn: Lsn;
  readonly xid: number;
  source: SourceHeaders;
  /** Published before: P1 skips all of it. */
  readonly skipped: boolean;
  /** Running snapshots want to know of its rows. */
  readonly told: boolean;
  seq: number;
}

/** Turns the messages of one connection into records, whole source transactions in commit order. */
export class TransactionAssembler {
  readonly #shapes = new Map<number, TableShape | undefined>();
  readonly #names = new Map<number, string>();
  #open: Open | undefined;

  /** `published`: commit LSN up to which transactions are in the log (P1). */
  constructor(
    private readonly sink: Sink,
    private readonly lookup: TableLookup,
    private readonly published: Lsn,
    private readonly window: SnapshotWindow,
    private readonly outbox: boolean,
    private readonly messages = TAKEN_AT_ITS_WORD,
  ) {}

  get inTransaction(): boolean {
    return this.#open !== undefined;
  }

  /** Returns a promise only when it had to ask; messages must be accepted one after another. */
  accept(message: PgMessage, at: string): Promise<void> | undefined {
    switch (message.type) {
      case 'begin':
        this.#begin(message.finalLsn, message.xid, message.commitMicros);
        return undefined;
      case 'commit': {
        const open = this.#transaction(message.type, at);
        this.#open = undefined;
        if (open.finalLsn !== message.commitLsn) throw unexpected('commit of another transaction', at);
        this.sink.complete({ commitLsn: open.finalLsn, endLsn: message.endLsn, xid: open.xid });
        return undefined;
      }
      case 'relation':
        return this.#relation(message);
      case 'insert':
        return this.#upsert(message.relation, 'c', undefined, message.row, at);
      case 'update':
        return this.#upsert(message.relation, 'u', message.old, message.row, at);
      case 'delete':
        this.#delete(message.relation, message.old, at);
        return undefined;
      case 'truncate':
        this.#truncate(message.relations, at);
        return undefined;
      case 'message':
        return this.#message(message, at);
      case 'origin':
      case 'type':
        return undefined;
    }
  }

  #begin(finalLsn: Lsn, xid: number, commitMicros: bigint): void {
    if (this.#open !== undefined) throw unexpected('begin inside a transaction', formatLsn(finalLsn));
    const source = sourceHeaders(formatLsn(finalLsn), String(xid), commitMicros);
    const told = this.window.active;
    if (told) this.window.begin(xid);
    this.#open = { finalLsn, xid, source, skipped: finalLsn <= this.published, told, seq: 0 };
  }

  #transaction(type: string, at: string): Open {
    if (this.#open === undefined) throw unexpected(`${type} outside a transaction`, at);
    return this.#open;
  }

  async #relation(relation: Relation): Promise<void> {
    this.#names.set(relation.oid, `${relation.schema}.${relation.name}`);
    const shape = await this.lookup.shape(relation);
    this.#shapes.set(relation.oid, shape);
    if (shape !== undefined && this.#open?.told === true) this.window.disturbed(shape.table);
  }

  #shape(oid: number, at: string): TableShape | undefined {
    const shape = this.#shapes.get(oid);
    if (shape === undefined && !this.#shapes.has(oid)) throw unexpected(`row of unknown relation ${oid}`, at);
    return shape;
  }

  #upsert(oid: number, op: 'c' | 'u', old: OldTuple | undefined, row: Tuple, at: string): Promise<void> | undefined {
    const open = this.#transaction(op === 'c' ? 'insert' : 'update', at);
    const shape = this.#shape(oid, at);
    if (shape === undefined || open.skipped) return undefined;
    checkWidth(shape, row, at);
    if (!row.includes(undefined)) {
      this.#put(open, shape, op, old, row, at);
      return undefined;
    }
    const image = old?.kind === 'full' ? filled(row, old.tuple) : row;
    if (!image.includes(undefined)) {
      this.#put(open, shape, op, old, image, at);
      return undefined;
    }
    return this.lookup
      .readRow(shape, filled(image, old?.tuple ?? []), open.xid)
      .then((present) => this.#put(open, shape, op, old, present === undefined ? image : filled(image, present), at));
  }

  #put(open: Open, shape: TableShape, op: 'c' | 'u', old: OldTuple | undefined, row: Tuple, at: string): void {
    const before = old === undefined ? undefined : keyText(shape, old.tuple);
    const key = keyText(shape, filled(row, old?.tuple ?? []));
    if (key === undefined) throw unexpected(`row of ${shape.table} without key`, at);
    if (before !== undefined && before !== key) {
      this.#changed(open, shape, before);
      this.sink.add(tombstone(shape, before, open.source, open.seq++));
    }
    this.#changed(open, shape, key);
    this.sink.add(upsert(shape, op, key, row, open.source, open.seq++));
  }

  #delete(oid: number, old: OldTuple, at: string): void {
    const open = this.#transaction('delete', at);
    const shape = this.#shape(oid, at);
    if (shape === undefined || open.skipped) return;
    checkWidth(shape, old.tuple, at);
    const key = keyText(shape, old.tuple);
    if (key === undefined) throw unexpected(`delete from ${shape.table} without key`, at);
    this.#changed(open, shape, key);
    this.sink.add(tombstone(shape, key, open.source, open.seq++));
  }

  #changed(open: Open, shape: TableShape, key: string): void {
    if (open.told && this.window.watches(shape.table)) this.window.changed(shape.table, key);
  }

  #truncate(oids: readonly number[], at: string): void {
    const open = this.#transaction('truncate', at);
    const tables = oids.filter((oid) => this.#shape(oid, at) !== undefined).map((oid) => this.#names.get(oid));
    if (tables.length === 0 || open.skipped) return;
    const lsn = formatLsn(open.finalLsn);
    throw new CaptureError(
      'CDC_TRUNCATE_UNSUPPORTED',
      `TRUNCATE of ${tables.join(', ')} in the transaction committed at ${lsn}: the log would keep rows that the table has lost. ` +
        'Use DELETE instead of TRUNCATE; to go on, drop the slot and start with snapshot "when-needed".',
      { tables, lsn },
    );
  }

  #message(message: LogicalMessage, at: string): Promise<void> | undefined {
    const open = message.transactional ? this.#transaction('message', at) : undefined;
    if (open?.skipped === true || (open === undefined && beforeLsn(message) <= this.published)) return undefined;
    if (message.prefix === WATERMARK_PREFIX || message.prefix === SIGNAL_PREFIX) {
      this.#control(message, at);
      return undefined;
    }
    if (!this.outbox || (message.prefix !== OUTBOX_PREFIX && message.prefix !== CONTEXT_PREFIX)) {
      this.sink.ignored();
      return undefined;
    }
    if (open === undefined && this.#open !== undefined)
      throw unexpected('message between the rows of a transaction', at);
    const content = this.messages.open(message, open?.xid);
    if (!(content instanceof Promise)) {
      this.#opened(message, content, open, at);
      return undefined;
    }
    return content.then((late) => this.#opened(message, late, open, at));
  }

  /** What a mark or a signal brings is a source transaction of its own that ends at its LSN. */
  #control(message: LogicalMessage, at: string): void {
    if (message.transactional) {
      this.sink.ignored();
      return;
    }
    if (this.#open !== undefined) throw unexpected('message between the rows of a transaction', at);
    this.#obeyed(() => {
      const { content, lsn } = message;
      const isSignal = message.prefix === SIGNAL_PREFIX;
      const output = isSignal ? this.window.signal(content, lsn) : this.window.watermark(content, lsn);
      if (output === undefined) return;
      output.emit(this.sink);
      const { snapshots, states } = output;
      this.sink.complete({ commitLsn: beforeLsn(message), endLsn: lsn, xid: 0, snapshots, states });
    });
  }

  #opened(message: LogicalMessage, content: Buffer | undefined, open: Open | undefined, at: string): void {
    this.#obeyed(() => {
      if (content === undefined)
        throw invalidMessage(message.prefix, at, 'it does not carry the signature of the outbox');
      if (message.prefix === CONTEXT_PREFIX) this.#context(content, open, at);
      else this.#route(message, content, open, at);
    });
  }

  /** Any role may emit a message: one that cannot be obeyed must not stop the others. */
  #obeyed(obey: () => void): void {
    try {
      obey();
    } catch (error) {
      if (!(error instanceof CaptureError) || error.code !== 'CDC_MESSAGE_INVALID') throw error;
      this.sink.ignored(error);
    }
  }

  #context(content: Buffer, open: Open | undefined, at: string): void {
    // Records before it have gone without: half a transaction with a context would mislead more than none.
    if (open === undefined || open.seq > 0 || open.source.context !== undefined) {
      throw invalidMessage(CONTEXT_PREFIX, at, 'a context must come first in its transaction, once');
    }
    open.source = { ...open.source, context: contextHeaders(content, at) };
  }

  #route(message: LogicalMessage, content: Buffer, open: Open | undefined, at: string): void {
    if (open !== undefined) {
      this.sink.add(outboxRecord(content, open.source, open.seq, at));
      open.seq += 1;
      return;
    }
    const lsn = formatLsn(message.lsn);
    const source = sourceHeaders(lsn, `message-${lsn}`, BigInt(Date.now()) * 1_000n);
    this.sink.add(outboxRecord(content, source, 0, at));
    this.sink.complete({ commitLsn: beforeLsn(message), endLsn: message.lsn, xid: 0 });
  }
}

/**
 * The LSN of a message that is not transactional is the end of its record, and the next commit record may begin exactly there: as a commit LSN
 * it would make that transaction look published (P1).
 */
function beforeLsn(message: LogicalMessage): Lsn {
  return (message.lsn - 1n) as Lsn;
}

function checkWidth(shape: TableShape, row: Tuple, at: string): void {
  if (row.length !== shape.columns.length) {
    throw unexpected(`row of ${shape.table} with ${row.length} instead of ${shape.columns.length} columns`, at);
  }
}

function unexpected(what: string, at: string): CaptureError {
  return new CaptureError(
    'CDC_PROTOCOL',
    `${what} at ${at}. Nothing of it was published or acknowledged; start capture again.`,
    {
      lsn: at,
    },
  );
}
