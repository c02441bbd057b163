import { errorMessage } from '@headwater/core';
import { resolveOptions } from './capture.options.js';
import type { CaptureOptions, ResolvedOptions } from './capture.options.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { MachineState } from './machine-states.js';
import type { Position } from './position.js';
import { postgresSource } from './postgres-source.js';
import { CaptureRunner } from './runner.js';
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
  readonly ignoredMessages: number;
  readonly lastError: string | undefined;
}

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
    for (const promise of [this.finished, this.#started]) promise.catch(() => {});
    this.#runner = this.#run({ source: postgresSource(this.#options), random: Math.random, ...ports });
  }

  /** Resolves when capture streams, waits for its slot, or has finished; rejects with the refusal. May be called twice. */
  start(): Promise<void> {
    this.#runner.tell({ name: 'start' });
    return this.#started;
  }

  /** Publishes and acknowledges what was received in whole transactions, and releases the slot. May be called twice. */
  async stop(): Promise<void> {
    this.#runner.tell({ name: 'stop' });
    await this.finished.catch(() => {});
  }

  status(): CaptureStatus {
    const position = this.#position;
    const { state } = this.#runner;
    return {
      state: publicState(state),
      endLsn: position && formatLsn(position.endLsn),
      commitLsn: position && formatLsn(position.commitLsn),
      rows: this.#rows,
      transactions: this.#transactions,
      reconnects: state.tally.reconnects,
      lagBytes:
        position && this.#walLsn !== undefined ? Math.max(0, Number(this.#walLsn - position.endLsn)) : undefined,
      ignoredMessages: this.#ignored,
      lastError: this.#lastError,
    };
  }

  #run(ports: CapturePorts): CaptureRunner {
    const { logger, name, onError } = this.#options;
    return new CaptureRunner(this.#options, ports, {
      ready: () => this.#ready.resolve(),
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
        this.#rows += rows;
        this.#transactions += transactions;
      },
      snapshotRows: (count) => (this.#rows += count),
      ignored: (error) => {
        this.#ignored += 1;
        if (error !== undefined) logger.warn(`capture ${name}: ignored: ${error.message}`);
      },
      wal: (lsn) => (this.#walLsn = lsn),
    });
  }
}

/** What an operator wants to know of the state: where it is going, not by which steps. */
function publicState(state: MachineState): CaptureState {
  switch (state.name) {
    case 'idle':
    case 'waiting':
    case 'stopped':
    case 'halted':
    case 'streaming':
      return state.name;
    case 'draining':
      return 'streaming';
    case 'retrying':
      return 'reconnecting';
    case 'preparing':
      return state.steps[0] === 'rows' ? 'snapshot' : 'starting';
    case 'closing':
      if (state.after.do === 'wait') return 'waiting';
      if (state.after.do === 'retry') return 'reconnecting';
      break;
    default:
  }
  if (state.tally.waits > 0) return 'waiting';
  return state.tally.failures > 0 ? 'reconnecting' : 'starting';
}
