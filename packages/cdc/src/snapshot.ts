import type { Log, LogWriter, OutRecord } from '@headwater/core';
import { headerText } from '@headwater/core';
import type { Client } from 'pg';
import type { ResolvedOptions } from './capture.options.js';
import type { CatalogTable } from './catalog.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { positionRecord, readRecords } from './position.js';
import type { Position } from './position.js';
import { quoteName, quoteText, textRows } from './postgres-session.js';
import { notCommitted } from './publish.js';
import { keyText, sourceHeaders, tombstone, upsert } from './rows.js';
import type { SourceHeaders, TableShape } from './rows.js';

export interface SnapshotTable {
  readonly table: CatalogTable;
  readonly shape: TableShape;
}

export interface SnapshotRun {
  readonly options: ResolvedOptions;
  readonly log: Log;
  readonly writer: LogWriter;
  readonly sql: Client;
  readonly tables: readonly SnapshotTable[];
  /** Exported by the creation of the slot; undefined: a snapshot of its own. */
  readonly exported: string | undefined;
  readonly lsn: Lsn;
  /** Committed with the last records. */
  readonly finished: Position;
  readonly signal: AbortSignal;
  readonly onRows: (count: number) => void;
}

/**
 * Publishes one consistent read of all tables (P9). Keys that are live in a topic and not in its table any more get a tombstone, so
 * that also after a repeated snapshot the fold equals the table; the live keys of one table at a time are held in memory.
 */
export async function publishSnapshot(run: SnapshotRun): Promise<void> {
  const { sql } = run;
  await sql.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    if (run.exported !== undefined) await sql.query(`SET TRANSACTION SNAPSHOT ${quoteText(run.exported)}`);
    const source = sourceHeaders(formatLsn(run.lsn), `snapshot-${formatLsn(run.lsn)}`, BigInt(Date.now()) * 1_000n);
    const seq = { next: 0 };
    for (const { table, shape } of run.tables) await publishTable(run, table, shape, source, seq);
    await write(run, [positionRecord(run.options.positionTopic, run.options.name, run.finished)]);
  } finally {
    await sql.query('ROLLBACK').catch(() => {});
  }
}

async function publishTable(
  run: SnapshotRun,
  table: CatalogTable,
  shape: TableShape,
  source: SourceHeaders,
  seq: { next: number },
): Promise<void> {
  const leftover = await liveKeys(run.log, shape);
  const columns = table.columns.map((column) => quoteName(column.name)).join(', ');
  const from = `${table.partitioned ? '' : 'ONLY '}${table.sqlName}`;
  await run.sql.query(`DECLARE headwater_snapshot NO SCROLL CURSOR FOR SELECT ${columns} FROM ${from}`);
  let previous: Promise<void> = Promise.resolve();
  for (;;) {
    run.signal.throwIfAborted();
    const rows = await textRows(run.sql, `FETCH ${run.options.snapshotChunkRows} FROM headwater_snapshot`).catch(
      async (error: unknown) => {
        await previous.catch(() => {});
        throw error;
      },
    );
    const records = rows.map((row) => {
      const key = keyText(shape, row) ?? '';
      leftover.delete(key);
      return upsert(shape, 'r', key, row, source, seq.next++);
    });
    await previous;
    if (records.length === 0) break;
    // The next chunk is read while this one is written.
    previous = write(run, records).then(() => run.onRows(records.length));
    previous.catch(() => {});
  }
  await run.sql.query('CLOSE headwater_snapshot');
  const gone = [...leftover].map((key) => tombstone(shape, key, source, seq.next++));
  for (let i = 0; i < gone.length; i += run.options.maxBatchRows) {
    await write(run, gone.slice(i, i + run.options.maxBatchRows));
  }
}

async function write(run: SnapshotRun, records: readonly OutRecord[]): Promise<void> {
  const outcome = await run.writer.transact(records);
  if (outcome.outcome !== 'committed') throw notCommitted(outcome, run.writer.transactionalId);
}

/** Keys of this table that are live in its topic before the snapshot. */
async function liveKeys(log: Log, shape: TableShape): Promise<Set<string>> {
  const live = new Set<string>();
  for (const { partition, start, lastStable } of await log.admin.offsets(shape.topic)) {
    if (start >= lastStable) continue;
    await readRecords(log, shape.topic, partition, start, lastStable, (record) => {
      if (record.key === null || headerText(record.headers, 'hw_table') !== shape.table) return;
      if (record.value === null) live.delete(record.key.toString());
      else live.add(record.key.toString());
    });
  }
  return live;
}
