import type { CatalogTable } from '../catalog.js';
import type { SnapshotState } from './snapshot-state.js';
import { isRead, TableRun } from './table-run.js';
import type { TableStep } from './table-run.js';

/** One table of one snapshot, and where it is read. */
export interface RunTable {
  readonly catalog: CatalogTable;
  readonly run: TableRun;
}

/** What a free worker may do. */
export interface Task {
  readonly of: SnapshotRun;
  readonly table: RunTable;
  readonly step: TableStep;
}

/** One unfinished snapshot, as it stands in the order of the stream. */
export class SnapshotRun {
  readonly tables: readonly RunTable[];
  /** Rows published by this process, and the moment it began to read. */
  readonly pace = { rows: 0, since: undefined as number | undefined };
  #paused: boolean;
  #failed = false;

  /** A table that is not captured any more counts as done. */
  constructor(
    private readonly from: SnapshotState,
    catalog: readonly CatalogTable[],
  ) {
    this.#paused = from.paused;
    this.tables = from.tables.flatMap((state) => {
      const found = catalog.find((table) => table.spec.table === state.table);
      return found === undefined ? [] : [{ catalog: found, run: new TableRun(state) }];
    });
  }

  get state(): SnapshotState {
    const now = new Map(this.tables.map(({ run }) => [run.state.table, run.state]));
    const tables = this.from.tables.map((state) => now.get(state.table) ?? { ...state, done: true });
    return { ...this.from, paused: this.#paused, tables };
  }

  get id(): string {
    return this.from.id;
  }

  get where(): string | null {
    return this.from.where;
  }

  get cause(): SnapshotState['cause'] {
    return this.from.cause;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** The first thing to do, table by table in their order. */
  next(now: number): Task | undefined {
    if (this.#paused || this.#failed) return undefined;
    for (const table of this.tables) {
      const step = table.run.next(now);
      if (step !== undefined) return { of: this, table, step };
    }
    return undefined;
  }

  /** It cannot be taken: nothing more is done for it until it is stopped. */
  fail(): void {
    this.#failed = true;
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    this.#failed = false;
    this.giveUp();
  }

  /** Everything read and not published is read again. */
  giveUp(): void {
    for (const { run } of this.tables) run.giveUp();
  }

  /** Called when rows of the table were published; true: it is done, nothing of its topic has to be looked through. */
  settle({ run }: RunTable): boolean {
    if (isRead(run.state) && !this.hasLeftovers(run)) run.finished();
    return run.state.done;
  }

  /** Keys that the table has lost can only be in a topic that was not empty, and a filtered snapshot touches no other keys. */
  hasLeftovers({ state }: TableRun): boolean {
    return this.from.where === null && (state.plan?.topicEnds.some((end) => end > 0) ?? false);
  }
}
