import { errorMessage } from '@headwater/core';
import { resolveOptions } from './capture.options.js';
import type { CaptureOptions, ResolvedOptions } from './capture.options.js';
import { CaptureError } from './cdc.errors.js';
import { formatLsn, ZERO_LSN } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { MachineState } from './machine-states.js';
import type { Position } from './position.js';
import { postgresSource } from './postgres-source.js';
import { CaptureRunner } from './runner.js';
import { unknownProgress } from './snapshot/progress.js';
import type { SnapshotProgress } from './snapshot/progress.js';
import { sendSignal, snapshotSignal } from './snapshot/send-signal.js';
import type { SnapshotRequest } from './snapshot/send-signal.js';
import type { Signal } from './snapshot/signals.js';
import type { CapturePorts } from './runner.js';

export type CaptureState =
  'idle' | 'starting' | 'waiting' | 'snapshot' | 'streaming' | 'reconnecting' | 'stopped' | 'halted';

export interface CaptureStatus {
  readonly state: CaptureState;
  /** End LSN and commit LSN of the last committed position. */
  readonly endLsn: string | undefined;
  readonly commitLsn: string | undefined;
  readonly rows: number;
  readonly transactions: number;
  readonly reconnects: number;
  /** WAL between the last committed position and what the server had written when it was last asked. */
  readonly lagBytes: number | undefined;
  /** Snapshots that are unfinished. */
  readonly snapshots: readonly SnapshotProgress[];
  readonly ignoredMessages: number;
  /** Captured tables that are not published any more: their changes never arrive. */
  readonly unpublished: readonly string[];
  /** Changes that are set aside, and how many keys they hold up; undefined before capture has streamed. */
  readonly parked: { readonly changes: number; readonly keys: number } | undefined;
  readonly lastError: string | undefined;
}

/** How often a request looks whether its place in the WAL is durable. */
const SIGNAL_POLL_MS = 10;

/**
 * Captures tables and outbox messages of one database into a log, exactly once: what is committed in Postgres is seen once by a
 * committed-only reader, in commit order per key, across crashes of every part. See SPEC.md for the states and invariants.
 */
export class Capture {
  /** Resolves after `stop()` (or a finished snapshot with `only`); rejects when capture halts for good. */
  readonly finished: Promise<void>;
  readonly #options: ResolvedOptions;
  readonly #runner: CaptureRunner;
  #position: Position | undefined;
  #rows = 0;
  #transactions = 0;
  #ignored = 0;
  #unpublished: readonly string[] = [];
  #parked: CaptureStatus['parked'];
  #walLsn: Lsn | undefined;
  #lastError: string | undefined;
  #settle: { resolve: () => void; reject: (error: unknown) => void } = { resolve: () => {}, reject: () => {} };
  #ready: { resolve: () => void; reject: (error: unknown) => void } = { resolve: () => {}, reject: () => {} };
  readonly #started: Promise<void>;

  /** `ports`: what a simulation puts in place of Postgres. */
  constructor(options: CaptureOptions, ports: Partial<CapturePorts> = {}) {
    this.#options = resolveOptions(options);
    this.finished = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#started = new Promise((resolve, reject) => (this.#ready = { resolve, reject }));
    // Whoever awaits them is told; who does not must not end the process.
    for (const promise of [this.finished, this.#started]) promise.catch(() => {});
    this.#runner = this.#run({ source: postgresSource(this.#options), random: Math.random, ...ports });
  }

  /**
   * Resolves when capture streams and every snapshot that it needs is published, waits for its slot, or has finished; rejects with the refusal. May be
   * called twice.
   */
  start(): Promise<void> {
    this.#runner.tell({ name: 'start' });
    return this.#started;
  }

  /** Publishes and acknowledges what was received in whole transactions, and releases the slot. May be called twice. */
  async stop(): Promise<void> {
    this.#runner.tell({ name: 'stop' });
    await this.finished.catch(() => {}); // `finished` itself tells
  }

  /**
   * Takes a snapshot of tables while changes are streamed: whole, or the rows that fulfil a condition. Resolves when it is durable that it will be
   * taken, across restarts; `status().snapshots` tells how far it is. An `id` that is unfinished already changes nothing.
   */
  async snapshot(wanted: SnapshotRequest): Promise<string> {
    const known = new Set(this.#options.tables.map(({ table }) => table));
    const unknown = wanted.tables.filter((table) => !known.has(table));
    if (unknown.length > 0) {
      const message = `${unknown.join(', ')}: not captured by "${this.#options.name}", so that there is no topic for it. Add it to tables.`;
      throw new CaptureError('CDC_TABLES_INVALID', message, { faults: unknown });
    }
    const signal = snapshotSignal(wanted);
    await this.#signal(signal);
    return signal.id;
  }

  /** Rows that are read and not published are given up; the stream goes on. Resolves when that is durable, as all signals do. */
  pauseSnapshot(id: string): Promise<void> {
    return this.#signal({ signal: 'pause', id });
  }

  /** Goes on behind the last row that was published. */
  resumeSnapshot(id: string): Promise<void> {
    return this.#signal({ signal: 'resume', id });
  }

  /** What is published stays; nothing more of the snapshot is. */
  stopSnapshot(id: string): Promise<void> {
    return this.#signal({ signal: 'stop', id });
  }

  async #signal(signal: Signal): Promise<void> {
    const lsn = await sendSignal(this.#options, signal);
    const isReached = () => (this.#position?.endLsn ?? ZERO_LSN) >= lsn;
    // A capture that is over obeys it at its next start.
    while (!isReached() && !isOver(this.#runner.state)) await this.#options.clock.wait(SIGNAL_POLL_MS);
  }

  #streamsOrWaits(): void {
    const { name } = this.#runner.state;
    const whole = !this.#snapshots.some(({ cause, state }) => cause === 'needed' && state !== 'paused');
    if (name === 'waiting' || (name === 'streaming' && whole)) this.#ready.resolve();
  }

  get #snapshots(): readonly SnapshotProgress[] {
    const live = this.#runner.snapshots;
    return (this.#position?.snapshots ?? []).map((id) => live.find((of) => of.id === id) ?? unknownProgress(id));
  }

  status(): CaptureStatus {
    const position = this.#position;
    const { state } = this.#runner;
    return {
      state: publicState(state, this.#snapshots),
      endLsn: position && formatLsn(position.endLsn),
      commitLsn: position && formatLsn(position.commitLsn),
      rows: this.#rows,
      transactions: this.#transactions,
      reconnects: state.tally.reconnects,
      lagBytes:
        position && this.#walLsn !== undefined ? Math.max(0, Number(this.#walLsn - position.endLsn)) : undefined,
      snapshots: this.#snapshots,
      ignoredMessages: this.#ignored,
      unpublished: this.#unpublished,
      parked: this.#parked,
      lastError: this.#lastError,
    };
  }

  #run(ports: CapturePorts): CaptureRunner {
    const { logger, name, onError } = this.#options;
    return new CaptureRunner(this.#options, ports, {
      ready: () => this.#streamsOrWaits(),
      ended: (error) => {
        if (error === undefined) {
          this.#ready.resolve();
          this.#settle.resolve();
        } else {
          this.#ready.reject(error);
          this.#settle.reject(error);
        }
      },
      reported: (error) => {
        this.#lastError = errorMessage(error);
        onError(error);
      },
      surveyed: (position) => {
        if (position?.phase === 'streaming') this.#position = position;
      },
      published: ({ position, rows, transactions }) => {
        this.#position = position;
        this.#streamsOrWaits();
        this.#rows += rows;
        this.#transactions += transactions;
      },
      ignored: (error) => {
        this.#ignored += 1;
        if (error !== undefined) logger.warn(`capture ${name}: ignored: ${error.message}`);
      },
      wal: (lsn) => (this.#walLsn = lsn),
      parked: (parked) => (this.#parked = parked),
      unpublished: (tables) => {
        this.#unpublished = tables;
        for (const table of tables)
          logger.warn(
            `capture ${name}: ${table} is captured and not published any more: made again under its name, or taken out of the publication. Its changes are lost; start capture again with snapshot "when-needed".`,
          );
      },
    });
  }
}

const isOver = ({ name }: MachineState): boolean => name === 'stopped' || name === 'halted';

/** What an operator wants to know of the state: where it is going, not by which steps. */
function publicState(state: MachineState, snapshots: readonly SnapshotProgress[]): CaptureState {
  switch (state.name) {
    case 'idle':
    case 'waiting':
    case 'stopped':
    case 'halted':
      return state.name;
    case 'streaming':
    case 'draining':
      return snapshots.some(({ cause }) => cause === 'needed') ? 'snapshot' : 'streaming';
    case 'retrying':
    case 'holding':
      return 'reconnecting';
    case 'closing':
      if (state.after.do === 'wait') return 'waiting';
      if (state.after.do === 'retry') return 'reconnecting';
      break;
    default:
  }
  if (state.tally.waits > 0) return 'waiting';
  return state.tally.failures > 0 ? 'reconnecting' : 'starting';
}
