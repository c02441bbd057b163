import type { Log } from '@headwater/core';
import type { CatalogTable } from '../catalog.js';
import { CaptureError } from '../cdc.errors.js';
import { stretches } from './chunk-query.js';
import type { SourceShape } from './chunk-query.js';
import type { SnapshotSource } from './snapshot-source.js';
import { topicEndsOf } from './snapshot-state.js';
import type { TablePlan } from './snapshot-state.js';

/** A stretch that is read by itself has at least so many chunks, or dividing is not worth the sampling. */
const CHUNKS_PER_STRETCH = 2;

/** What has to be known of a table before its first chunk. Throws CDC_KEY_NULL. */
export async function planTable(
  source: SnapshotSource,
  log: Log,
  table: CatalogTable,
  shape: SourceShape,
  {
    where,
    chunkRows,
    workers,
    topicEnds: known,
  }: {
    readonly where: string | null;
    readonly chunkRows: number;
    readonly workers: number;
    readonly topicEnds: readonly number[] | null;
  },
): Promise<{ readonly plan: TablePlan; readonly width: number }> {
  if (await source.hasNullKey(table, shape)) {
    throw new CaptureError(
      'CDC_KEY_NULL',
      `a row of ${table.spec.table} has NULL in its key (${table.keyColumns.join(', ')}), so that no record can be written for it. Fill it and set the columns NOT NULL, or declare other keyColumns.`,
      { table: table.spec.table, key: table.keyColumns },
    );
  }
  const topicEnds = known ?? (await topicEndsOf(log, table.spec.topic));
  const { rows, width } = await source.expect(table, where);
  const parts = Math.min(workers, Math.floor(rows / (CHUNKS_PER_STRETCH * chunkRows)));
  const cuts = parts > 1 ? await source.boundaries(table, shape, rows, parts) : [];
  const ranges = stretches(cuts).map((stretch) => ({ ...stretch, rows: 0, done: false }));
  return { plan: { topicEnds, expectedRows: rows, ranges }, width };
}
