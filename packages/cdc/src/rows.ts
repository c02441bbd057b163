import type { Header, OutRecord } from '@headwater/core';
import type { CapturedTable } from './capture.options.js';
import { CaptureError } from './cdc.errors.js';
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
  /** Stands first in the key. */
  readonly keyFirst: string | undefined;
  /** Indexes of the columns whose text chooses the partition; undefined: the key does. */
  readonly route: readonly number[] | undefined;
  /** Every update tells the whole old row; one that does not comes from a partition with another replica identity. */
  readonly tellsOld: boolean;
  readonly header: Header;
  readonly version: SchemaVersion;
}

export function tableShape(
  spec: Pick<CapturedTable, 'table' | 'topic' | 'keyWithTable' | 'partitionBy'>,
  columns: readonly {
    readonly name: string;
    readonly encode: JsonEncoder;
    readonly type?: string;
    readonly rule?: string;
  }[],
  keyColumns: readonly string[],
  tellsOld = false,
): TableShape {
  const indexOf = (name: string) => columns.findIndex((column) => column.name === name);
  return {
    table: spec.table,
    topic: spec.topic,
    columns: columns.map(({ name, encode }, i) => ({
      name,
      encode,
      json: `${i === 0 ? '' : ','}${JSON.stringify(name)}:`,
    })),
    key: keyColumns.map(indexOf),
    keyFirst: spec.keyWithTable === true ? spec.table : undefined,
    route: spec.partitionBy?.map(indexOf),
    tellsOld,
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
export function keyText({ key, keyFirst }: TableShape, tuple: Tuple): string | undefined {
  if (key.length === 1 && keyFirst === undefined) return tuple[key[0]!] ?? undefined;
  const parts = key.map((i) => tuple[i]);
  if (parts.some((part) => part === null || part === undefined)) return undefined;
  return JSON.stringify(keyFirst === undefined ? parts : [keyFirst, ...parts]);
}

/** The text by which a row is partitioned; undefined: its key is. Throws a RangeError when this tuple does not tell it. */
export function routeText({ route, table }: TableShape, tuple: Tuple): string | undefined {
  if (route === undefined) return undefined;
  const parts = route.map((i) => {
    const text = tuple[i];
    if (text === undefined) throw new RangeError(`row of ${table} without the columns it is partitioned by`);
    return text ?? '';
  });
  return parts.length === 1 ? parts[0]! : JSON.stringify(parts);
}

/** The key of the tombstone that stands for all rows of a table. */
export const emptiedKey = ({ keyFirst }: TableShape): string =>
  keyFirst === undefined ? '' : JSON.stringify([keyFirst]);

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

/** The record in a partition of its own; undefined: in the one its key gives. */
export function inPartition(record: OutRecord, partition: number | undefined): OutRecord {
  return partition === undefined ? record : { ...record, partition };
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

/** The JSON object of a row that `rowJson` cannot encode: what a type cannot print stands in it as its text, and is named. Rules of columns hold. */
export function rowTexts(
  shape: TableShape,
  row: Tuple,
): { readonly json: string; readonly refused: readonly string[] } {
  const refused: string[] = [];
  const columns = shape.columns.map((column) => ({
    ...column,
    encode:
      column.encode === excluded
        ? excluded
        : (text: string) => {
            try {
              return column.encode(text);
            } catch (error) {
              if (!(error instanceof RangeError)) throw error;
              refused.push(column.name);
              return JSON.stringify(text);
            }
          },
  }));
  const json = rowJson({ ...shape, columns }, row);
  return { json, refused };
}

export function invalidValue({ table }: TableShape, columns: readonly string[], cause: unknown): CaptureError {
  return new CaptureError(
    'CDC_VALUE_INVALID',
    `${columns.join(', ')} of ${table} holds a value that its type never prints. Mend the row or the type, then start capture again, or retry what is parked.`,
    { table, columns },
    cause,
  );
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
