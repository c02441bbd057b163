import type { Header, OutRecord } from '@headwater/core';
import { excluded } from './column-rules.js';
import type { JsonEncoder } from './json-types.js';
import type { Tuple } from './pgoutput.js';
import type { SchemaVersion } from './schema-log.js';

/** Everything needed to turn rows of one table, as it is shaped at this moment, into records. */
export interface TableShape {
  readonly table: string;
  readonly topic: string;
  readonly columns: readonly { readonly name: string; readonly json: string; readonly encode: JsonEncoder }[];
  /** Indexes of the key columns, in key order. */
  readonly key: readonly number[];
  readonly header: Header;
  readonly version: SchemaVersion;
}

export function tableShape(
  spec: { readonly table: string; readonly topic: string },
  columns: readonly {
    readonly name: string;
    readonly encode: JsonEncoder;
    readonly type?: string;
    readonly rule?: string;
  }[],
  keyColumns: readonly string[],
): TableShape {
  return {
    table: spec.table,
    topic: spec.topic,
    columns: columns.map(({ name, encode }, i) => ({
      name,
      encode,
      json: `${i === 0 ? '' : ','}${JSON.stringify(name)}:`,
    })),
    key: keyColumns.map((name) => columns.findIndex((column) => column.name === name)),
    header: ['hw_table', Buffer.from(spec.table)],
    version: {
      columns: columns
        .filter(({ encode }) => encode !== excluded)
        .map(({ name, type = '', rule }) => ({ name, type, ...(rule !== undefined && { rule }) })),
      key: keyColumns,
    },
  };
}

/** Headers shared by all records of one source transaction. */
export interface SourceHeaders {
  readonly lsn: Header;
  readonly tx: Header;
  readonly ts: Header;
  /** What the context message of the transaction asked for. */
  readonly context?: readonly Header[];
}

export function sourceHeaders(lsn: string, tx: string, micros: bigint): SourceHeaders {
  return {
    lsn: ['hw_lsn', Buffer.from(lsn)],
    tx: ['hw_tx', Buffer.from(tx)],
    ts: ['hw_ts', Buffer.from(micros.toString())],
  };
}

export type Operation = 'r' | 'c' | 'u' | 'd' | 't';
const OPERATIONS: Readonly<Record<Operation, Header>> = {
  r: ['hw_op', Buffer.from('r')],
  c: ['hw_op', Buffer.from('c')],
  u: ['hw_op', Buffer.from('u')],
  d: ['hw_op', Buffer.from('d')],
  t: ['hw_op', Buffer.from('t')],
};

/** The text of the key, or undefined when a key column is missing or null in this tuple. */
export function keyText(shape: TableShape, tuple: Tuple): string | undefined {
  if (shape.key.length === 1) return tuple[shape.key[0]!] ?? undefined;
  const parts = shape.key.map((i) => tuple[i]);
  return parts.some((part) => part === null || part === undefined) ? undefined : JSON.stringify(parts);
}

/** A record with a value that is encoded already. */
export function recordOf(
  shape: TableShape,
  op: Operation,
  key: string,
  value: Buffer,
  source: SourceHeaders,
  seq: number,
): OutRecord {
  return { topic: shape.topic, key: Buffer.from(key), value, headers: captureHeaders(shape, op, source, seq) };
}

export function tombstone(
  shape: TableShape,
  key: string,
  source: SourceHeaders,
  seq: number,
  op: 'd' | 't' = 'd',
): OutRecord {
  return { topic: shape.topic, key: Buffer.from(key), value: null, headers: captureHeaders(shape, op, source, seq) };
}

/** The JSON object of a row; SQL NULL is null, an unchanged TOAST value that could not be filled is left out. */
export function rowJson(shape: TableShape, row: Tuple): string {
  let json = '';
  const { columns } = shape;
  for (let i = 0; i < columns.length; i++) {
    const value = row[i];
    const column = columns[i]!;
    if (value === undefined || column.encode === excluded) continue;
    json += column.json + (value === null ? 'null' : column.encode(value));
  }
  return `{${json.startsWith(',') ? json.slice(1) : json}}`;
}

function captureHeaders(shape: TableShape, op: Operation, source: SourceHeaders, seq: number): Header[] {
  const headers: Header[] = [
    OPERATIONS[op],
    source.lsn,
    ['hw_seq', Buffer.from(String(seq))],
    source.tx,
    source.ts,
    shape.header,
  ];
  if (source.context !== undefined) headers.push(...source.context);
  return headers;
}
