import type { Clock } from '@headwater/core';
import type { CatalogTable } from '../catalog.js';
import type { Lsn } from '../lsn.js';
import type { SourceShape, Stretch } from './chunk-query.js';
import type { TxSnapshot } from './tx-snapshot.js';

/** Which rows to read. */
export interface ChunkRead {
  readonly table: CatalogTable;
  readonly shape: SourceShape;
  readonly where: string | null;
  readonly stretch: Stretch;
  readonly limit: number;
  /** Called for every row, with its line in COPY's text format; valid only during the call. */
  readonly onRow: (line: Buffer) => void;
}

export interface ChunkFacts {
  readonly snapshot: TxSnapshot;
  /** Microseconds since 1970 on the server's clock. */
  readonly readMicros: bigint;
  /** The table as it was in this read: when it is another one than asked for, the rows are worthless. */
  readonly shape: SourceShape;
}

/** What one session asks of the source for snapshots. Writes nothing but logical messages; every call but `writersEnded` is one short transaction. */
export interface SnapshotSource {
  /** Writes a logical message that belongs to no transaction, and flushes it: until then the walsender does not see it. */
  emit(prefix: string, content: string): Promise<Lsn>;
  shape(table: CatalogTable): Promise<SourceShape>;
  /** The rows in key order, all of one snapshot. */
  read(chunk: ChunkRead): Promise<ChunkFacts>;
  /** What the planner expects: rows, and bytes per row. */
  expect(table: CatalogTable, where: string | null): Promise<{ readonly rows: number; readonly width: number }>;
  /** Keys that cut the table into about equal stretches. */
  boundaries(
    table: CatalogTable,
    shape: SourceShape,
    rows: number,
    parts: number,
  ): Promise<readonly (readonly string[])[]>;
  /** Whether a row has no key. */
  hasNullKey(table: CatalogTable, shape: SourceShape): Promise<boolean>;
  /**
   * Resolves when all transactions that have written to the table by now have ended, with a snapshot that sees them. A transaction that is committed in the WAL
   * keeps its locks until it is visible. Those that begin to write later are not waited for. `onWait` is told their pids when it takes long.
   */
  writersEnded(
    table: CatalogTable,
    clock: Clock,
    signal: AbortSignal,
    onWait: (pids: string) => void,
  ): Promise<TxSnapshot>;
  /** Ends the session, and what it is asked just now. Never rejects. */
  end(): Promise<void>;
}
