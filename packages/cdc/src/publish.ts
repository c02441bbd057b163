import type { Clock, LogTransaction, LogWriter, OutRecord, Outcome } from '@headwater/core';
import { errorCode, errorMessage } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { maxLsn } from './lsn.js';
import { positionRecord } from './position.js';
import type { Position } from './position.js';
import type { Progress, Sink } from './transaction-assembler.js';

export interface PublishOptions {
  readonly name: string;
  readonly positionTopic: string;
  readonly maxBatchBytes: number;
  readonly maxBatchRows: number;
  readonly clock: Clock;
}

export interface Published {
  readonly position: Position;
  readonly rows: number;
  readonly transactions: number;
}

/** How often positions without rows are written. */
const IDLE_INTERVAL_MS = 200;

/**
 * Collects records and writes whole source transactions with the position, one log transaction at a time (P1). A source
 * transaction above the cap is appended in parts to one log transaction, which is committed only when it is complete.
 */
export class Publisher implements Omit<Sink, 'ignored'> {
  #pending: OutRecord[] = [];
  #bytes = 0;
  #completeRecords = 0;
  #transactions = 0;
  #progress: Required<Omit<Progress, 'states'>> | undefined;
  /** The last of each key is enough: they become durable together. */
  #states = new Map<string, OutRecord>();
  #spilled: LogTransaction | undefined;
  #spilledRows = 0;
  #inFlight: Promise<void> | undefined;
  #failure: unknown;
  #lastIdle = -IDLE_INTERVAL_MS;

  constructor(
    private readonly writer: LogWriter,
    private readonly options: PublishOptions,
    private position: Position,
    private readonly onPublished: (published: Published) => void,
  ) {}

  add(record: OutRecord): void {
    this.#pending.push(record);
    this.#bytes += 160 + (record.key?.length ?? 0) + (record.value?.length ?? 0);
  }

  complete(progress: Progress): void {
    this.#completeRecords = this.#pending.length;
    this.#transactions += 1;
    this.#progress = {
      commitLsn: maxLsn(progress.commitLsn, this.#commitLsn),
      endLsn: maxLsn(progress.endLsn, this.endLsn),
      xid: progress.xid,
      snapshots: progress.snapshots ?? this.#snapshots,
    };
    for (const state of progress.states ?? []) this.#states.set(String(state.key), state);
  }

  /** The server has read the WAL up to here and no transaction is open. */
  reached(endLsn: Progress['endLsn']): void {
    if (endLsn <= this.endLsn) return;
    const xid = this.#progress?.xid ?? this.position.xid;
    this.#progress = { commitLsn: this.#commitLsn, endLsn, xid, snapshots: this.#snapshots };
  }

  get endLsn(): Progress['endLsn'] {
    return this.#progress?.endLsn ?? this.position.endLsn;
  }

  get #snapshots(): readonly string[] {
    return this.#progress?.snapshots ?? this.position.snapshots;
  }

  get #commitLsn(): Progress['commitLsn'] {
    return this.#progress?.commitLsn ?? this.position.commitLsn;
  }

  get isFull(): boolean {
    return this.#bytes >= this.options.maxBatchBytes || this.#pending.length >= this.options.maxBatchRows;
  }

  get inFlight(): Promise<void> | undefined {
    return this.#inFlight;
  }

  /** Milliseconds until `flush` will write a position without rows; undefined when there is nothing to write. */
  get idleDelayMs(): number | undefined {
    if (this.#progress === undefined) return undefined;
    return Math.max(0, this.#lastIdle + IDLE_INTERVAL_MS - this.options.clock.elapsed());
  }

  /** Begins to write what is complete, unless a write is in flight. Throws what the previous write failed with. */
  flush(force = false): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#inFlight !== undefined || this.#progress === undefined) return;
    if (this.#spilled !== undefined && this.#transactions === 0) return;
    const hasRows = this.#completeRecords > 0 || this.#spilled !== undefined;
    if (!hasRows && !force && this.idleDelayMs !== 0) return;
    if (!hasRows) this.#lastIdle = this.options.clock.elapsed();
    this.#inFlight = this.#write().catch((error: unknown) => {
      this.#failure = error;
    });
  }

  /** Makes room: writes what is complete, or appends the part of a large source transaction that is there. */
  async makeRoom(): Promise<void> {
    await this.#inFlight;
    // Also a position without rows: it must not end up in the middle of a transaction written in parts.
    this.flush(true);
    if (this.#inFlight !== undefined || !this.isFull) return;
    this.#spilled ??= this.writer.begin();
    const part = this.#take(this.#pending.length);
    this.#spilledRows += part.length;
    await this.#spilled.append(part).catch((cause: unknown) => {
      throw failed(cause);
    });
  }

  /** Writes everything complete and waits for it. */
  async drain(): Promise<void> {
    while (
      this.#inFlight !== undefined ||
      (this.#progress !== undefined && (this.#spilled === undefined || this.#transactions > 0))
    ) {
      this.flush(true);
      await this.#inFlight;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Gives up what is not complete. */
  async abandon(): Promise<void> {
    await this.#inFlight;
    const open = this.#spilled;
    this.#spilled = undefined;
    await open?.abort();
  }

  async #write(): Promise<void> {
    const position: Position = { ...this.position, ...this.#progress!, phase: 'streaming' };
    const transactions = this.#transactions;
    const records = this.#take(this.#completeRecords);
    const rows = records.length + this.#spilledRows;
    const spilled = this.#spilled;
    const states = [...this.#states.values()];
    this.#states.clear();
    this.#transactions = 0;
    this.#spilledRows = 0;
    this.#spilled = undefined;
    this.#progress = undefined;
    // What arrives while this is in flight builds on the position that will be committed.
    this.position = position;
    records.push(...states, positionRecord(this.options.positionTopic, this.options.name, position));
    const outcome = spilled === undefined ? await this.writer.transact(records) : await finish(spilled, records);
    if (outcome.outcome !== 'committed') throw notCommitted(outcome, this.writer.transactionalId);
    this.onPublished({ position, rows, transactions });
    this.#inFlight = undefined;
  }

  #take(count: number): OutRecord[] {
    const taken = count === this.#pending.length ? this.#pending : this.#pending.slice(0, count);
    this.#pending = count === this.#pending.length ? [] : this.#pending.slice(count);
    this.#bytes = this.#pending.reduce((sum, r) => sum + 160 + (r.key?.length ?? 0) + (r.value?.length ?? 0), 0);
    this.#completeRecords = Math.max(0, this.#completeRecords - count);
    return taken;
  }
}

async function finish(transaction: LogTransaction, records: readonly OutRecord[]): Promise<Outcome> {
  try {
    await transaction.append(records);
  } catch (error) {
    return transaction.abort(error);
  }
  return transaction.commit();
}

/** P7: fenced is the end; anything else is learned from the position after a new fence. */
export function notCommitted(outcome: Outcome, transactionalId: string): CaptureError {
  const cause = outcome.outcome === 'committed' ? undefined : outcome.cause;
  if (outcome.outcome === 'aborted' && outcome.fenced === 'writer') {
    return new CaptureError(
      'CDC_FENCED',
      `another capture took over transactional id "${transactionalId}". Nothing of the last batch was published or acknowledged here. Run one capture per name.`,
      { transactionalId },
      cause,
    );
  }
  return failed(cause, outcome.outcome);
}

/** What the log refuses of a record for good: the same batch would be refused for ever. */
const REFUSED = new Set(['RECORD_TOO_LARGE', 'LOG_TOPIC_MISSING', 'LOG_PARTITION_MISSING']);

function failed(cause: unknown, outcome = 'aborted'): CaptureError {
  if (REFUSED.has(errorCode(cause) ?? '')) {
    const message = `the log refuses a record: ${errorMessage(cause)} Nothing of its transaction was published or acknowledged. Mend the topic, then start capture again.`;
    return new CaptureError('CDC_RECORD_REFUSED', message, { outcome }, cause);
  }
  const message = `the log transaction ended ${outcome}: ${errorMessage(cause)}. Capture fences, reads its position and goes on.`;
  return new CaptureError('CDC_PUBLISH_FAILED', message, { outcome }, cause);
}
