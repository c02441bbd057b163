import { quoteName, type Sql } from '@headwater/core';
import { keyColumns, tableOf, type ProjectionOptions, type Row } from './projection.js';

/** One row to write or to delete, by the key of its table. */
export interface RowWrite {
  readonly op: 'upsert' | 'delete';
  readonly row: Row;
}

export function createTable(options: ProjectionOptions): string[] {
  const table = quoteName(tableOf(options));
  const columns = Object.entries(options.columns).map(([name, type]) => `${quoteName(name)} ${type}`);
  const key = keyColumns(options).map(quoteName).join(', ');
  const indexes = (options.indexes ?? []).map(
    (names) =>
      `CREATE INDEX IF NOT EXISTS ${quoteName(`${options.name}_v${options.version}_${names.join('_')}`)} ON ${table} (${names.map(quoteName).join(', ')})`,
  );
  return [`CREATE TABLE IF NOT EXISTS ${table} (${columns.join(', ')}, PRIMARY KEY (${key}))`, ...indexes];
}

/** The last write per key: one statement must not touch a row twice (SQLSTATE 21000). */
export function collapse(options: ProjectionOptions, writes: readonly RowWrite[]): RowWrite[] {
  const key = keyColumns(options);
  const last = new Map<string, RowWrite>();
  for (const write of writes) last.set(JSON.stringify(key.map((column) => String(write.row[column]))), write);
  return [...last.values()];
}

/** Writes a batch with at most two statements. The whole row is replaced: a column that is not given becomes null. */
export async function writeRows(options: ProjectionOptions, writes: readonly RowWrite[], sql: Sql): Promise<void> {
  const collapsed = collapse(options, writes);
  const upserts = collapsed.filter((write) => write.op === 'upsert');
  const deletes = collapsed.filter((write) => write.op === 'delete');
  if (deletes.length > 0) await sql.query(deleteSql(options), [rowsJson(deletes)]);
  if (upserts.length > 0) await sql.query(upsertSql(options), [rowsJson(upserts)]);
}

function upsertSql(options: ProjectionOptions): string {
  const table = quoteName(tableOf(options));
  const columns = Object.keys(options.columns).map(quoteName);
  const updates = columns.map((column) => `${column} = EXCLUDED.${column}`).join(', ');
  const key = keyColumns(options).map(quoteName).join(', ');
  return `INSERT INTO ${table} (${columns.join(', ')})
    SELECT ${columns.join(', ')} FROM jsonb_populate_recordset(NULL::${table}, $1::jsonb)
    ON CONFLICT (${key}) DO UPDATE SET ${updates}`;
}

function deleteSql(options: ProjectionOptions): string {
  const table = quoteName(tableOf(options));
  const match = keyColumns(options)
    .map((column) => `t.${quoteName(column)} = d.${quoteName(column)}`)
    .join(' AND ');
  return `DELETE FROM ${table} t USING jsonb_populate_recordset(NULL::${table}, $1::jsonb) d WHERE ${match}`;
}

function rowsJson(writes: readonly RowWrite[]): string {
  return JSON.stringify(
    writes.map((write) => write.row),
    (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value),
  );
}
