import type { OutRecord, TopicRuns } from '@headwater/core';
import { HeadwaterError } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { LogicalMessages } from './logical-messages.js';
import type { MessageOpener } from './logical-messages.js';
import { decodeRare, undecodable } from './pgoutput.js';
import type { LogicalMessage, Relation, Tuple } from './pgoutput.js';
import { RowEncoder } from './row-encoder.js';
import { RowSpans } from './row-spans.js';
import { placeNamed } from './place.js';
import { inPartition, invalidValue, recordOf, rowTexts, tombstone } from './rows.js';
import type { TableShape } from './rows.js';
import type { SchemaLog } from './schema-log.js';
import type { SnapshotWindow } from './snapshot-window.js';
import { SourceTransaction } from './source-transaction.js';
import type { TransactionLog } from './transaction-log.js';
import type { Truncations } from './truncation.js';

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
  /** Where records of the topic go; a promise the first time it is asked for. Rejects with CDC_RECORD_REFUSED when the topic is missing. */
  topic(topic: string): TopicRuns | Promise<TopicRuns>;
  /** Adds a record that was made elsewhere; its topic was opened before. */
  add(record: OutRecord): void;
  /** Everything added so far belongs to complete source transactions. */
  complete(progress: Progress): void;
  /** A row that cannot be encoded, `record` being what can be told of it. False: capture halts. Absent: it always does. */
  refuse?(record: OutRecord, error: unknown): boolean;
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

/** One pgoutput message: `bytes` from `start` to `end`, and where the WAL stood. */
export interface WalMessage {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  readonly lsn: Lsn;
}

const [INSERT, UPDATE, DELETE, BEGIN, COMMIT] = [...Buffer.from('IUDBC')];
const [NEW_ROW, KEY_ROW, OLD_ROW] = [...Buffer.from('NKO')];

/** A relation as the stream describes it; `rows` is undefined when its table is not captured. */
interface Described {
  readonly columns: number;
  readonly name: string;
  readonly rows: RowEncoder | undefined;
  /** A row has used it, or none ever will. */
  used: boolean;
}

/** Turns the messages of one connection into records, whole source transactions in commit order. */
export class TransactionAssembler {
  readonly #relations = new Map<number, Described>();
  readonly #open: SourceTransaction;
  readonly #row = new RowSpans();
  readonly #old = new RowSpans();
  readonly #messages: LogicalMessages;
  /** Of the last row: rows of one table come together. */
  #lastOid = -1;
  #last: Described | undefined;
  /** The open transaction is told to running snapshots. */
  #watching = false;

  /** `published`: commit LSN up to which transactions are in the log (P1). */
  constructor(
    private readonly sink: Sink,
    private readonly lookup: TableLookup,
    private readonly published: Lsn,
    private readonly window: SnapshotWindow,
    /** Absent: there is no outbox, and its messages are passed by. */
    outbox: MessageOpener | undefined,
    /** Absent: a TRUNCATE halts capture. */
    private readonly truncations?: Pick<Truncations, 'empty'>,
    /** Absent: versions of tables are not recorded. Its topic was opened before. */
    private readonly schemas?: SchemaLog,
    /** Absent: nothing is told of transactions. Its topic was opened before. */
    transactions?: TransactionLog,
  ) {
    this.#open = new SourceTransaction(transactions);
    this.#messages = new LogicalMessages(sink, this.#open, published, window, outbox);
  }

  get inTransaction(): boolean {
    return this.#open.isOpen;
  }

  /** Returns a promise only when it had to ask; the message must stay as it is until then, and the next one must wait. */
  accept(message: WalMessage): Promise<void> | undefined {
    const { bytes, start } = message;
    try {
      switch (bytes[start]) {
        case INSERT:
          return this.#insert(message);
        case UPDATE:
          return this.#update(message);
        case DELETE:
          return this.#delete(message);
        case BEGIN:
          return this.#begin(message);
        case COMMIT:
          return this.#commit(message);
        default:
          return this.#rare(message);
      }
    } catch (error) {
      throw refusal(message.end === start ? 'none' : String.fromCharCode(bytes[start]!), error, message.lsn);
    }
  }

  #begin({ bytes, start, end }: WalMessage): undefined {
    checkLength(start + 21, end);
    const finalLsn = bytes.readBigUInt64BE(start + 1) as Lsn;
    if (this.#open.isOpen) throw unexpected('begin inside a transaction', finalLsn);
    const xid = bytes.readUInt32BE(start + 17);
    this.#open.begin(finalLsn, xid, bytes.readBigInt64BE(start + 9), finalLsn <= this.published);
    if (this.schemas?.hasLater === true && !this.#open.skipped) this.#describe();
    this.#watching = this.window.active;
    if (this.#watching) this.window.begin(xid);
  }

  #commit({ bytes, start, end, lsn }: WalMessage): undefined {
    checkLength(start + 26, end);
    if (bytes[start + 1] !== 0) throw new RangeError(`found byte ${bytes[start + 1]} instead of 0`);
    const open = this.#transaction('commit', lsn);
    open.isOpen = false;
    if (open.finalLsn !== bytes.readBigUInt64BE(start + 2)) throw unexpected('commit of another transaction', lsn);
    const told = open.end();
    if (told !== undefined) this.sink.add(told);
    this.sink.complete({ commitLsn: open.finalLsn, endLsn: bytes.readBigUInt64BE(start + 10) as Lsn, xid: open.xid });
  }

  #insert({ bytes, start, end, lsn }: WalMessage): Promise<void> | undefined {
    checkRoom(start + 6, end);
    checkKind(bytes[start + 5], NEW_ROW!);
    checkLength(this.#row.read(bytes, start + 6, end), end);
    return this.#upsert(bytes.readUInt32BE(start + 1), 'c', undefined, lsn);
  }

  #update({ bytes, start, end, lsn }: WalMessage): Promise<void> | undefined {
    checkRoom(start + 6, end);
    const kind = bytes[start + 5];
    let at = start + 6;
    let old: RowSpans | undefined;
    if (kind !== NEW_ROW) {
      at = this.#readOld(bytes, kind, at, end);
      old = this.#old;
      checkRoom(at + 1, end);
      checkKind(bytes[at++], NEW_ROW!);
    }
    checkLength(this.#row.read(bytes, at, end), end);
    // Only a full image tells the values that were not sent; the key row has nulls in their place.
    if (kind === OLD_ROW && this.#row.partial && this.#old.count === this.#row.count) this.#row.fillFrom(this.#old);
    return this.#upsert(bytes.readUInt32BE(start + 1), 'u', old, lsn);
  }

  #delete({ bytes, start, end, lsn }: WalMessage): undefined {
    checkRoom(start + 6, end);
    checkLength(this.#readOld(bytes, bytes[start + 5], start + 6, end), end);
    const open = this.#transaction('delete', lsn);
    const table = this.#described(bytes.readUInt32BE(start + 1), lsn);
    const { rows } = table;
    if (rows === undefined || open.skipped) return;
    checkWidth(table, this.#old, lsn);
    if (!rows.tombstone('d', this.#old, open.block, open.seq))
      throw unexpected(`delete from ${table.name} without ${wanted(rows)}`, lsn);
    open.added(rows.shape.topic, 1);
    if (this.#watching) this.#changed(rows, true);
  }

  #readOld(bytes: Buffer, kind: number | undefined, at: number, end: number): number {
    if (kind !== KEY_ROW && kind !== OLD_ROW) throw new RangeError(`unknown tuple kind ${kind}`);
    this.#old.isKey = kind === KEY_ROW;
    return this.#old.read(bytes, at, end);
  }

  #upsert(oid: number, op: 'c' | 'u', old: RowSpans | undefined, lsn: Lsn): Promise<void> | undefined {
    const open = this.#transaction(op === 'c' ? 'insert' : 'update', lsn);
    const table = this.#described(oid, lsn);
    const { rows } = table;
    if (rows === undefined || open.skipped) return undefined;
    checkWidth(table, this.#row, lsn);
    if (old !== undefined) checkWidth(table, old, lsn);
    if (this.#row.partial) return this.#reread(rows, op, old, lsn);
    this.#put(rows, op, this.#row, old, lsn);
    return undefined;
  }

  /** Fills what was not sent from the present row; where that is gone, the record says what is missing. */
  async #reread(rows: RowEncoder, op: 'c' | 'u', old: RowSpans | undefined, lsn: Lsn): Promise<void> {
    const row = this.#row.texts();
    const key = row.map((text, i) => (text === undefined ? old?.texts()[i] : text));
    const present = await this.lookup.readRow(rows.shape, key, this.#open.xid);
    const image = row.map((text, i) => (text === undefined ? present?.[i] : text));
    try {
      this.#put(rows, op, new RowSpans().fill(image), old, lsn);
    } catch (error) {
      throw refusal(op === 'c' ? 'I' : 'U', error, lsn);
    }
  }

  #put(rows: RowEncoder, op: 'c' | 'u', row: RowSpans, old: RowSpans | undefined, lsn: Lsn): void {
    const open = this.#open;
    const added = this.#encode(rows, op, row, old);
    if (added === 0) throw unexpected(`row of ${rows.shape.table} without ${wanted(rows)}`, lsn);
    open.added(rows.shape.topic, added);
    if (!this.#watching) return;
    this.#changed(rows, !row.partial);
    if (added === 2) this.window.changed(rows.shape.table, rows.placeBefore, true);
  }

  #encode(rows: RowEncoder, op: 'c' | 'u', row: RowSpans, old: RowSpans | undefined): 0 | 1 | 2 {
    const open = this.#open;
    try {
      return rows.upsert(op, row, old, open.block, open.seq);
    } catch (error) {
      if (!(error instanceof RangeError) || this.sink.refuse === undefined) throw error;
      // The tombstone of another place before it was added.
      const seq = open.seq + (rows.moved ? 1 : 0);
      const { key, partition } = placeNamed(rows.place);
      const { json, refused } = rowTexts(rows.shape, row.texts());
      const record = recordOf(rows.shape, op, key, Buffer.from(json), open.headers, seq);
      const told = inPartition(record, partition);
      if (!this.sink.refuse(told, invalidValue(rows.shape, refused, error))) throw error;
      return rows.moved ? 2 : 1;
    }
  }

  #changed(rows: RowEncoder, whole: boolean): void {
    const { table } = rows.shape;
    if (this.window.watches(table)) this.window.changed(table, rows.place, whole);
  }

  #transaction(type: string, lsn: Lsn): SourceTransaction {
    if (!this.#open.isOpen) throw unexpected(`${type} outside a transaction`, lsn);
    return this.#open;
  }

  #described(oid: number, lsn: Lsn): Described {
    if (oid === this.#lastOid) return this.#last!;
    const found = this.#relations.get(oid);
    if (found === undefined) throw unexpected(`row of unknown relation ${oid}`, lsn);
    if (!found.used) this.#use(found);
    this.#lastOid = oid;
    return (this.#last = found);
  }

  #rare({ bytes, start, end, lsn }: WalMessage): Promise<void> | undefined {
    const message = decodeRare(bytes.subarray(start, end), formatLsn(lsn));
    switch (message.type) {
      case 'relation':
        return this.#relation(message);
      case 'truncate':
        return this.#truncate(message.relations, lsn);
      case 'message':
        return this.#message(message, lsn);
      case 'origin':
      case 'type':
        return undefined;
    }
  }

  async #relation(relation: Relation): Promise<void> {
    const { oid, schema, name, columns } = relation;
    const shape = await this.lookup.shape(relation);
    const rows = shape && new RowEncoder(shape, await this.sink.topic(shape.topic));
    const used = rows === undefined;
    this.#relations.set(oid, { columns: columns.length, name: shape?.table ?? `${schema}.${name}`, rows, used });
    this.#lastOid = -1;
    if (shape !== undefined && this.#watching && this.window.watches(shape.table)) this.window.disturbed(shape.table);
  }

  /** The version of a table goes before the first row that uses it. What is skipped was recorded in its time. */
  #use(table: Described): void {
    table.used = true;
    const { shape } = table.rows!;
    if (this.#open.skipped) this.schemas?.seen(shape);
    else this.#describe(shape);
  }

  #describe(shape?: TableShape): void {
    for (const record of this.schemas?.due(this.#open.headers, shape) ?? []) this.sink.add(record);
  }

  #truncate(oids: readonly number[], lsn: Lsn): Promise<void> | undefined {
    const open = this.#transaction('truncate', lsn);
    const tables = oids.map((oid) => this.#described(oid, lsn)).filter(({ rows }) => rows !== undefined);
    if (tables.length === 0 || open.skipped) return undefined;
    for (const { name } of tables) if (this.#watching && this.window.watches(name)) this.window.disturbed(name);
    if (this.truncations !== undefined) return this.#empty(this.truncations, tables);
    const names = tables.map(({ name }) => name);
    const at = formatLsn(open.finalLsn);
    throw new CaptureError(
      'CDC_TRUNCATE_UNSUPPORTED',
      `TRUNCATE of ${names.join(', ')} in the transaction committed at ${at}: the log would keep rows that the table has lost. ` +
        'Use DELETE instead of TRUNCATE; to go on, drop the slot and start with snapshot "when-needed".',
      { tables: names, lsn: at },
    );
  }

  async #empty(truncations: Pick<Truncations, 'empty'>, tables: readonly Described[]): Promise<void> {
    const open = this.#open;
    for (const { rows } of tables) {
      const { shape } = rows!;
      await truncations.empty(shape, (key, partition) => {
        this.sink.add(inPartition(tombstone(shape, key, open.headers, open.seq, 't'), partition));
        open.added(shape.topic, 1);
      });
    }
  }

  #message(message: LogicalMessage, lsn: Lsn): Promise<void> | undefined {
    if (message.transactional) this.#transaction('message', lsn);
    else if (this.#open.isOpen) throw unexpected('message between the rows of a transaction', lsn);
    return this.#messages.accept(message, formatLsn(lsn));
  }
}

function refusal(type: string, error: unknown, lsn: Lsn): HeadwaterError {
  return error instanceof HeadwaterError ? error : undecodable(type, formatLsn(lsn), error);
}

const wanted = ({ shape: { route } }: RowEncoder): string =>
  route === undefined ? 'key' : 'key, or the old row by which it is partitioned (REPLICA IDENTITY of its partitions)';

function checkRoom(needed: number, end: number): void {
  if (needed > end) throw new RangeError(`${needed - end} bytes are missing`);
}

/** A message must be read to its last byte (P6). */
function checkLength(read: number, end: number): void {
  checkRoom(read, end);
  if (read < end) throw new RangeError(`${end - read} bytes too many`);
}

function checkKind(found: number | undefined, wanted: number): void {
  if (found !== wanted) throw new RangeError(`found byte ${found} instead of ${wanted}`);
}

function checkWidth({ columns, name }: Described, row: RowSpans, lsn: Lsn): void {
  if (row.count !== columns) throw unexpected(`row of ${name} with ${row.count} instead of ${columns} columns`, lsn);
}

function unexpected(what: string, lsn: Lsn): CaptureError {
  const at = formatLsn(lsn);
  const message = `${what} at ${at}. Nothing of it was published or acknowledged; start capture again.`;
  return new CaptureError('CDC_PROTOCOL', message, { lsn: at });
}
