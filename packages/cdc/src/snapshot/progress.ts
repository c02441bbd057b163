import { causeOf } from './snapshot-state.js';
import type { SnapshotState, TableState } from './snapshot-state.js';

/** How far a snapshot is. */
export interface SnapshotProgress {
  readonly id: string;
  /** `needed`: the topics are not whole before it is done. */
  readonly cause: SnapshotState['cause'];
  /** `waiting`: capture is not streaming. */
  readonly state: 'running' | 'paused' | 'waiting';
  readonly tables: readonly {
    readonly table: string;
    readonly rows: number;
    readonly expectedRows: number | undefined;
    readonly done: boolean;
  }[];
  readonly rows: number;
  /** By the planner's estimate of the rows; 100 only when it is done. Undefined before all tables are planned. */
  readonly percent: number | undefined;
  /** At the pace since this process began to read; undefined before there is one, and while paused. */
  readonly secondsLeft: number | undefined;
}

/** `read`: rows published by this process in `elapsedMs`. */
export function progressOf(snapshot: SnapshotState, read: number, elapsedMs: number): SnapshotProgress {
  const tables = snapshot.tables.map((state) => ({
    table: state.table,
    rows: rowsOf(state),
    expectedRows: state.plan?.expectedRows,
    done: state.done,
  }));
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const planned = tables.every(({ expectedRows, done }) => done || expectedRows !== undefined);
  // Estimates may be too low: a table that is not done has at least one row more.
  const left = tables.reduce((sum, t) => sum + (t.done ? 0 : Math.max(1, (t.expectedRows ?? 0) - t.rows)), 0);
  const pace = read / Math.max(1, elapsedMs);
  return {
    id: snapshot.id,
    cause: snapshot.cause,
    state: snapshot.paused ? 'paused' : 'running',
    tables,
    rows,
    percent: planned ? Math.min(left === 0 ? 100 : 99, Math.floor((100 * rows) / Math.max(1, rows + left))) : undefined,
    secondsLeft: planned && pace > 0 && !snapshot.paused ? Math.ceil(left / pace / 1_000) : undefined,
  };
}

/** One of which only the id is known, before capture has read its state. */
export function unknownProgress(id: string): SnapshotProgress {
  return { id, cause: causeOf(id), state: 'waiting', tables: [], rows: 0, percent: undefined, secondsLeft: undefined };
}

export function rowsOf({ plan }: TableState): number {
  return plan?.ranges.reduce((sum, range) => sum + range.rows, 0) ?? 0;
}
