import type { Log, LogWriter, OutRecord } from '@headwater/core';
import { headerText } from '@headwater/core';
import type { ResolvedOptions } from './capture.options.js';
import type { CatalogTable } from './catalog.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { positionRecord, readRecords } from './position.js';
import type { Position } from './position.js';
import type { Tuple } from './pgoutput.js';
import { notCommitted } from './publish.js';
import { keyText, sourceHeaders, tombstone, upsert } from './rows.js';
import type { SourceHeaders, TableShape } from './rows.js';

export interface SnapshotTable {
  readonly table: CatalogTable;
  readonly shape: TableShape;
}

/** One consistent read of the database, until `end`. */
export interface SnapshotReader {
  /** All rows of a table, `rows` at a time, as text in the order of its columns. */
  chunks(table: CatalogTable, rows: number): AsyncIterable<readonly Tuple[]>;
  end(): Promise<void>;
}

export interface SnapshotRun {
  readonly options: ResolvedOptions;
  readonly log: Log;
  readonly writer: LogWriter;
  readonly tables: readonly SnapshotTable[];
  /** One consistent read. */
  readonly reader: SnapshotReader;
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
  try {
    const lsn = formatLsn(run.lsn);
    const source = sourceHeaders(lsn, `snapshot-${lsn}`, BigInt(run.options.clock.now()) * 1_000n);
    const seq = { next: 0 };
    for (const { table, shape } of run.tables) await publishTable(run, table, shape, source, seq);
    await write(run, [positionRecord(run.options.positionTopic, run.options.name, run.finished)]);
  } finally {
    await run.reader.end().catch(() => {});
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
  let previous: Promise<void> = Promise.resolve();
  try {
    for await (const rows of run.reader.chunks(table, run.options.snapshotChunkRows)) {
      run.signal.throwIfAborted();
      const records = rows.map((row) => {
        const key = keyText(shape, row) ?? '';
        leftover.delete(key);
        return upsert(shape, 'r', key, row, source, seq.next++);
      });
      await previous;
      // The next chunk is read while this one is written.
      previous = write(run, records).then(() => run.onRows(records.length));
      previous.catch(() => {});
    }
  } finally {
    await previous;
  }
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
