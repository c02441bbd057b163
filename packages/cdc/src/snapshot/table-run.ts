import type { RangeState, TablePlan, TableState } from './snapshot-state.js';

/** Chunks of one range that are read and wait for their high watermark. */
const AHEAD = 2;
const RETRY_MS = [0, 5, 20, 100, 250, 1_000];

/** How far the reading of one range is: ahead of what is published. */
interface RangeRun {
  /** Behind which the next chunk is read. */
  after: RangeState['after'];
  /** The last chunk of the range has been read. */
  exhausted: boolean;
  /** The task that reads it. */
  reader: object | undefined;
  waiting: number;
  /** Raised when what was read and is not published has become worthless. */
  generation: number;
  repeats: number;
  notBefore: number;
}

/** What is next for a table. */
export type TableStep =
  | { readonly step: 'prepare' | 'leftovers' }
  | { readonly step: 'read'; readonly range: number; readonly generation: number; readonly after: RangeState['after'] };

/**
 * One table of a running snapshot: what is published, as the log has it or will have it, and what is being read. Pure; the caller gives the time. `state`
 * moves in the order of the stream.
 */
export class TableRun {
  #prepared = false;
  #busy = false;
  #generation = 0;
  #generations = 0;
  #ranges: RangeRun[] = [];

  constructor(private current: TableState) {}

  get state(): TableState {
    return this.current;
  }

  get generation(): number {
    return this.#generation;
  }

  /** What a free worker may do now; undefined: nothing before something else happens. */
  next(now: number): TableStep | undefined {
    if (this.current.done || this.#busy) return undefined;
    if (!this.#prepared) return { step: 'prepare' };
    const { ranges } = this.current.plan!;
    for (const [range, run] of this.#ranges.entries()) {
      if (run.exhausted || run.reader !== undefined || run.waiting >= AHEAD || run.notBefore > now) continue;
      return { step: 'read', range, generation: run.generation, after: run.after };
    }
    return ranges.every(({ done }) => done) ? { step: 'leftovers' } : undefined;
  }

  /** When a repetition that is put off may begin; undefined when there is none. */
  dueAfter(now: number): number | undefined {
    const due = this.#ranges.filter((run) => !run.exhausted && run.notBefore > now).map((run) => run.notBefore);
    return this.current.done || due.length === 0 ? undefined : Math.min(...due);
  }

  /** One worker prepares, or looks for leftovers. */
  begin(): void {
    this.#busy = true;
  }

  end(): void {
    this.#busy = false;
  }

  prepared(plan: TablePlan): void {
    this.current = { ...this.current, plan };
    this.#prepared = true;
    this.#ranges = plan.ranges.map(({ after, done }) => ({
      after,
      exhausted: done,
      reader: undefined,
      waiting: 0,
      generation: ++this.#generations,
      repeats: 0,
      notBefore: 0,
    }));
  }

  beginRead(range: number, reader: object): void {
    this.#ranges[range]!.reader = reader;
  }

  /** What was read waits for its high watermark; false: it is worthless, because the range went back meanwhile. */
  endRead(
    range: number,
    generation: number,
    chunk: { readonly last: RangeState['after']; readonly full: boolean },
  ): boolean {
    const run = this.#ranges[range]!;
    if (run.generation !== generation) return false;
    run.waiting += 1;
    run.after = chunk.last ?? run.after;
    run.exhausted = !chunk.full;
    return true;
  }

  /** The task is over. */
  letGo(range: number, reader: object): void {
    const run = this.#ranges[range]!;
    // After giving up another one may have it.
    if (run.reader === reader) run.reader = undefined;
  }

  /** A chunk is published: `rows` read, up to `last`. Chunks of one range are published in their order. */
  published(
    range: number,
    chunk: { readonly last: RangeState['after']; readonly full: boolean; readonly rows: number },
  ): void {
    const run = this.#ranges[range]!;
    run.waiting -= 1;
    run.repeats = 0;
    const ranges = this.current.plan!.ranges.map((state, i) =>
      i === range
        ? { ...state, after: chunk.last ?? state.after, rows: state.rows + chunk.rows, done: !chunk.full }
        : state,
    );
    this.current = { ...this.current, plan: { ...this.current.plan!, ranges } };
  }

  /** What was read of the range and is not published has to be read again, later each time. */
  goBack(range: number, now: number): void {
    const run = this.#ranges[range]!;
    const { after, done } = this.current.plan!.ranges[range]!;
    Object.assign(run, { after, exhausted: done, waiting: 0, generation: ++this.#generations });
    run.notBefore = now + RETRY_MS[Math.min(run.repeats, RETRY_MS.length - 1)]!;
    run.repeats += 1;
  }

  /** Everything read and not published is given up, and what was told of the stream with it: the table is prepared anew. */
  giveUp(): void {
    this.#generation += 1;
    this.#prepared = false;
    for (const [range, run] of this.#ranges.entries()) {
      this.goBack(range, 0);
      Object.assign(run, { notBefore: 0, repeats: 0 });
    }
  }

  finished(): void {
    this.current = { ...this.current, done: true };
  }
}

/** Whether all rows of the table are published. */
export const isRead = ({ plan }: TableState): boolean => plan?.ranges.every(({ done }) => done) ?? false;
