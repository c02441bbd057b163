import type { OutRecord } from '@headwater/core';
import type { CatalogTable } from '../catalog.js';
import { CaptureError } from '../cdc.errors.js';
import { formatLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { TableShape } from '../rows.js';
import type { SnapshotWindow, WindowOutput } from '../snapshot-window.js';
import { leftoverRecords } from './chunk.js';
import type { Chunk } from './chunk.js';
import { markContent, parseMark } from './marks.js';
import { progressOf } from './progress.js';
import type { SnapshotProgress } from './progress.js';
import { parseSignal } from './signals.js';
import type { Signal } from './signals.js';
import { SnapshotRun } from './snapshot-run.js';
import type { RunTable, Task } from './snapshot-run.js';
import { causeOf, newSnapshot } from './snapshot-state.js';
import type { SnapshotRecords, SnapshotState, TablePlan, TableState } from './snapshot-state.js';
import { ToldKeys } from './told-keys.js';
import type { TxSnapshot } from './tx-snapshot.js';
import { WindowBook } from './window-book.js';
import type { Verdict } from './window-book.js';

export interface StreamSetup {
  readonly name: string;
  /** Different in every life of a connection: marks of another one open and close nothing. */
  readonly life: string;
  readonly signalKey: string;
  readonly records: SnapshotRecords;
  readonly catalog: readonly CatalogTable[];
  readonly states: readonly SnapshotState[];
  /** Milliseconds, never going back. */
  readonly elapsed: () => number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Something may be done now that could not be done before. */
  readonly onChange: () => void;
  readonly onNotice: (message: string) => void;
}

/** Rows read, waiting for the high watermark of their window. */
export interface ReadChunk {
  readonly kind: 'chunk';
  readonly of: SnapshotRun;
  readonly table: RunTable;
  readonly range: number;
  readonly chunk: Chunk;
  readonly full: boolean;
}

/** Places of keys that the table may have lost, waiting for the marks of their window. */
export interface ReadKeys {
  readonly kind: 'keys';
  readonly of: SnapshotRun;
  readonly table: RunTable;
  readonly shape: TableShape;
  readonly places: ReadonlySet<string>;
  /** Nothing more is to be looked for in this table. */
  readonly last: boolean;
  readonly onLow: (lsn: Lsn) => void;
  /** The window is closed: published, or given up. */
  readonly onEnd: (published: boolean) => void;
}

/** Above this the stream tells more transactions than a stalled read is worth: it begins anew. */
const MOST_KEPT = 1_000_000;

/**
 * The side of the snapshots that follows the stream: everything here happens in the order of the WAL, and what it puts out is committed with the position.
 * See SPEC.md, N1 to N9.
 */
export class SnapshotStream implements SnapshotWindow {
  readonly #runs: SnapshotRun[] = [];
  readonly #reads = new Map<number, ReadChunk | ReadKeys>();
  readonly #told = new ToldKeys();
  #book = new WindowBook();
  #windows = 0;

  constructor(private readonly setup: StreamSetup) {
    for (const state of setup.states) this.#runs.push(this.#run(state));
  }

  get active(): boolean {
    return this.#runs.some(({ paused }) => !paused);
  }

  get ids(): readonly string[] {
    return this.#runs.map(({ id }) => id);
  }

  /** Rows that are read and not published, in chunks. */
  get waiting(): number {
    return this.#reads.size;
  }

  progress(): readonly SnapshotProgress[] {
    const now = this.setup.elapsed();
    return this.#runs.map(({ state, pace }) => progressOf(state, pace.rows, now - (pace.since ?? now)));
  }

  begin(xid: number): void {
    this.#book.begin(xid);
    if (this.#book.kept > MOST_KEPT) this.#startOver();
  }

  watches(table: string): boolean {
    return this.#told.follows(table) || this.#book.watches(table);
  }

  changed(table: string, place: string, whole: boolean): void {
    this.#book.changed(table, place);
    if (whole) this.#told.add(table, place);
  }

  disturbed(table: string): void {
    this.#book.disturbed(table);
  }

  watermark(content: Buffer, lsn: Lsn): WindowOutput | undefined {
    const mark = parseMark(content);
    if (mark === undefined || mark.capture !== this.setup.name || mark.life !== this.setup.life) return undefined;
    const read = this.#reads.get(mark.window);
    if (mark.side === 'low') {
      if (!this.#book.low(mark.window) || read?.kind !== 'keys') return undefined;
      read.onLow(lsn);
      // The position has to pass this place before the topic is looked through once more.
      return this.#output([]);
    }
    const verdict = this.#book.high(mark.window);
    this.#reads.delete(mark.window);
    this.setup.onChange();
    if (read === undefined || verdict === undefined) return undefined;
    return read.kind === 'chunk' ? this.#publish(read, verdict, lsn) : this.#bury(read, verdict, lsn);
  }

  signal(content: Buffer, lsn: Lsn): WindowOutput | undefined {
    let signal: Signal | undefined;
    try {
      signal = parseSignal(content, this.setup.name, this.setup.signalKey);
      if (signal === undefined) return undefined;
      return this.#obey(signal);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new CaptureError(
        'CDC_MESSAGE_INVALID',
        `the signal at ${formatLsn(lsn)} is refused: ${error.message}. Nothing was done for it; send it with "headwater snapshot", or mend what it names.`,
        { lsn: formatLsn(lsn) },
      );
    } finally {
      this.setup.onChange();
    }
  }

  // What the workers ask and tell.

  next(): Task | undefined {
    const now = this.setup.elapsed();
    for (const run of this.#runs) {
      const task = run.next(now);
      if (task === undefined) continue;
      run.pace.since ??= now;
      return task;
    }
    return undefined;
  }

  /** The table may be read by this plan, which may be of an earlier life. */
  prepared({ of, table: { run } }: Pick<Task, 'of' | 'table'>, plan: TablePlan): void {
    run.prepared(plan);
    this.#follow(of, run.state);
  }

  /** Until the next repetition is due, which is not told by `onChange`. */
  get dueInMs(): number | undefined {
    const now = this.setup.elapsed();
    const due = this.#runs.flatMap(({ tables }) => tables.map(({ run }) => run.dueAfter(now) ?? Infinity));
    const first = Math.min(Infinity, ...due);
    return first === Infinity ? undefined : first - now;
  }

  know(snapshot: TxSnapshot): void {
    this.#book.know(snapshot);
  }

  /** Opens a window: to be called before its low watermark is written. */
  open(table: RunTable): number {
    const id = ++this.#windows;
    this.#book.open(id, table.run.state.table);
    return id;
  }

  mark(window: number, side: 'low' | 'high'): string {
    return markContent({ capture: this.setup.name, life: this.setup.life, window, side });
  }

  close(id: number): void {
    this.#book.close(id);
    this.#drop(id);
  }

  /** Has what was read wait for its high watermark: to be called before that is written. */
  wait(id: number, read: ReadChunk | ReadKeys, snapshot?: TxSnapshot): void {
    if (snapshot !== undefined) this.#book.read(id, snapshot);
    this.#reads.set(id, read);
  }

  /** N8: what was read of the range and is not published is read again. */
  goBack(table: RunTable, range: number): void {
    for (const [id, read] of this.#reads) {
      if (read.kind === 'chunk' && read.table === table && read.range === range) this.close(id);
    }
    table.run.goBack(range, this.setup.elapsed());
    this.setup.onChange();
  }

  #publish(read: ReadChunk, verdict: Verdict, lsn: Lsn): WindowOutput | undefined {
    const { of, table, range, chunk, full } = read;
    if (verdict.kind !== 'publish') {
      this.goBack(table, range);
      return undefined;
    }
    table.run.published(range, { last: chunk.last, full, rows: chunk.keys.length });
    of.pace.rows += chunk.keys.length;
    of.settle(table);
    // N12: what was asked for is told again; what capture needs of a row may have come with the stream.
    const told = of.cause === 'needed' ? this.#told.of(table.run.state.table) : undefined;
    const isTold = (place: string) => verdict.changed.has(place) || told?.has(place) === true;
    return this.#moved(chunk.records(lsn, isTold), of, table);
  }

  /** N7: keys of the topic that are in the table no more. */
  #bury({ of, table, shape, places, last, onEnd }: ReadKeys, verdict: Verdict, lsn: Lsn): WindowOutput | undefined {
    onEnd(verdict.kind === 'publish');
    if (verdict.kind !== 'publish') return undefined;
    if (last) table.run.finished();
    const gone = [...places].filter((place) => !verdict.changed.has(place));
    return this.#moved(leftoverRecords(shape, gone, lsn, BigInt(Math.round(this.setup.now())) * 1_000n), of, table);
  }

  #obey(signal: Signal): WindowOutput {
    const { records, onNotice } = this.setup;
    const found = this.#runs.find(({ id }) => id === signal.id);
    if (signal.signal === 'snapshot') {
      if (found !== undefined) return this.#output([]);
      if (causeOf(signal.id) !== 'asked') throw new RangeError(`the id "${signal.id}" is kept for capture's own`);
      const unknown = signal.tables.filter((table) => !this.setup.catalog.some(({ spec }) => spec.table === table));
      if (unknown.length > 0) throw new RangeError(`${unknown.join(', ')} is not captured`);
      const run = this.#run(newSnapshot(signal.id, signal.tables, signal.where));
      this.#runs.push(run);
      return this.#output([], records.begun(run.state));
    }
    if (found === undefined) {
      onNotice(`signal "${signal.signal}": no snapshot "${signal.id}" is unfinished`);
      return this.#output([]);
    }
    const { state } = found;
    if (signal.signal === 'stop') {
      found.giveUp();
      this.#closeAll(found);
      this.#runs.splice(this.#runs.indexOf(found), 1);
      onNotice(`snapshot "${signal.id}" is stopped`);
      return this.#settled(records.over(state));
    }
    found.pause(signal.signal === 'pause');
    this.#closeAll(found);
    return this.#settled([records.head(found.state)]);
  }

  #run(state: SnapshotState): SnapshotRun {
    const run = new SnapshotRun(state, this.setup.catalog);
    for (const { run: table } of run.tables) if (table.state.topicEnds) this.#follow(run, table.state);
    return run;
  }

  /** N12: only once the ends of its topic are known. What was told before would be taken for what the table has lost (N7). */
  #follow({ cause }: SnapshotRun, { table, done }: TableState): void {
    if (cause === 'needed' && !done) this.#told.follow(table);
  }

  #closeAll(run: SnapshotRun): void {
    for (const [id, read] of this.#reads) if (read.of === run) this.close(id);
  }

  #drop(id: number): void {
    const read = this.#reads.get(id);
    this.#reads.delete(id);
    if (read?.kind === 'keys') read.onEnd(false);
  }

  #startOver(): void {
    for (const run of this.#runs) {
      run.giveUp();
      this.#closeAll(run);
    }
    this.#book = new WindowBook();
    this.setup.onChange();
  }

  /** While nothing is active the stream tells nothing: what it told before is not enough for the next read. */
  #settled(states: readonly OutRecord[]): WindowOutput {
    if (!this.active) this.#book = new WindowBook();
    return this.#output([], states);
  }

  /** Rows of a table, and how far it is with them. */
  #moved(rows: Iterable<OutRecord>, of: SnapshotRun, table: RunTable): WindowOutput {
    const { records, onNotice } = this.setup;
    const { state } = of;
    if (of.cause === 'needed' && table.run.state.done) this.#told.forget(table.run.state.table);
    if (!state.tables.every(({ done }) => done)) return this.#output(rows, [records.table(state.id, table.run.state)]);
    this.#runs.splice(this.#runs.indexOf(of), 1);
    onNotice(`snapshot "${of.id}" is done`);
    if (!this.active) this.#book = new WindowBook();
    return this.#output(rows, records.over(state));
  }

  #output(rows: Iterable<OutRecord>, states: readonly OutRecord[] = []): WindowOutput {
    return {
      snapshots: this.ids,
      states,
      emit(sink) {
        for (const row of rows) sink.add(row);
      },
    };
  }
}
