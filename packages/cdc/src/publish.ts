import { RecordRuns } from '@headwater/core';
import type {
  Clock,
  LogInput,
  LogTransaction,
  LogWriter,
  OutRecord,
  Outcome,
  TakenRun,
  TopicRuns,
} from '@headwater/core';
import { isFatal } from './cdc.errors.js';
import { maxLsn } from './lsn.js';
import { positionRecord } from './position.js';
import type { Position } from './position.js';
import { failed, notCommitted, topicMissing } from './publish.errors.js';
import type { Parking } from './parking/parking.js';
import { roomOf, type TopicLimits } from './topic-limits.js';
import type { Progress, Sink } from './transaction-assembler.js';

export interface PublishOptions {
  readonly name: string;
  readonly positionTopic: string;
  readonly maxBatchBytes: number;
  readonly maxBatchRows: number;
  /** Its records tell of others, and are not counted. */
  readonly transactionsTopic?: string | undefined;
  readonly clock: Clock;
}

export interface Published {
  readonly position: Position;
  readonly rows: number;
  readonly transactions: number;
}

/** How often positions without rows are written. */
const IDLE_INTERVAL_MS = 200;
/** From the beginning of a write to the next one: what trickles shares commits, and the first row after a pause goes at once. */
const ROW_INTERVAL_MS = 5;

/**
 * Collects records and writes whole source transactions with the position, one log transaction at a time (P1). A source
 * transaction above the cap is appended in parts to one log transaction, which is committed only when it is complete; one part is
 * collected while the one before is sent, so that memory stays within a few caps however large the transaction.
 */
export class Publisher implements Omit<Sink, 'ignored'> {
  readonly #runs = new RecordRuns();
  readonly #limits = new Map<string, TopicLimits>();
  readonly #ends = new Map<string, number>();
  readonly #limitOf = (topic: string) => this.#limits.get(topic)?.maxBatchBytes;
  #transactions = 0;
  #progress: Required<Omit<Progress, 'states'>> | undefined;
  /** The last of each key is enough: they become durable together. */
  readonly #states = new Map<string, OutRecord>();
  #spilled: LogTransaction | undefined;
  #spilling: Promise<void> = Promise.resolve();
  #spilledRows = 0;
  #inFlight: Promise<void> | undefined;
  #failure: unknown;
  #lastIdle = -IDLE_INTERVAL_MS;
  #lastRows = -ROW_INTERVAL_MS;

  constructor(
    private readonly writer: LogWriter,
    private readonly limits: (topics: readonly string[]) => Promise<ReadonlyMap<string, TopicLimits>>,
    private readonly options: PublishOptions,
    private position: Position,
    private readonly onPublished: (published: Published) => void,
    /** Absent: no record is looked at. */
    private readonly parking?: Pick<Parking, 'guard' | 'topics'>,
  ) {}

  topic(topic: string): TopicRuns | Promise<TopicRuns> {
    return this.#runs.topic(topic) ?? this.open([topic]).then(() => this.#runs.topic(topic)!);
  }

  /** Lets records of these topics be added, by their limits as they are now. Rejects with CDC_RECORD_REFUSED when one is missing. */
  async open(topics: readonly string[]): Promise<void> {
    const found = await this.limits(topics);
    for (const topic of topics) {
      const limits = found.get(topic);
      if (limits === undefined) throw topicMissing(topic);
      this.#limits.set(topic, limits);
      const guard = this.parking?.guard(topic, limits);
      // A second place for its records would change their order.
      if (this.#runs.topic(topic) !== undefined) this.watch(topic);
      else this.#runs.openTopic(topic, limits.partitions, roomOf(limits), guard);
    }
  }

  /** Which records of the topic are looked at has changed. */
  watch(topic: string): void {
    this.#runs.topic(topic)?.watch();
  }

  add(record: OutRecord): void {
    const topic = this.#runs.topic(record.topic);
    if (topic === undefined) throw new Error(`records for ${record.topic} before it was opened`);
    topic.add(record);
  }

  complete(progress: Progress): void {
    this.#runs.complete();
    this.#transactions += 1;
    this.#progress = {
      commitLsn: maxLsn(progress.commitLsn, this.#commitLsn),
      endLsn: maxLsn(progress.endLsn, this.endLsn),
      xid: progress.xid,
      snapshots: progress.snapshots ?? this.#snapshots,
    };
    for (const state of progress.states ?? []) this.#states.set(String(state.key), state);
  }

  /** Everything added so far belongs together, and to no source transaction. */
  completeBeside(): void {
    const xid = this.#progress?.xid ?? this.position.xid;
    this.complete({ commitLsn: this.#commitLsn, endLsn: this.endLsn, xid });
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
    return this.#runs.bytes >= this.options.maxBatchBytes || this.#runs.records >= this.options.maxBatchRows;
  }

  get inFlight(): Promise<void> | undefined {
    return this.#inFlight;
  }

  /** Milliseconds until `flush` will write what is complete; undefined when there is nothing to write. */
  get flushDelayMs(): number | undefined {
    if (this.#progress === undefined) return undefined;
    const dueAt = this.#hasRows ? this.#lastRows + ROW_INTERVAL_MS : this.#lastIdle + IDLE_INTERVAL_MS;
    return Math.max(0, dueAt - this.options.clock.elapsed());
  }

  get #hasRows(): boolean {
    return this.#runs.completeRecords > 0 || this.#spilled !== undefined;
  }

  /** Begins to write what is complete and due, unless a write is in flight; `force`: due or not. Throws what the previous write failed with. */
  flush(force = false): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#inFlight !== undefined || this.#progress === undefined) return;
    if (this.#spilled !== undefined && this.#transactions === 0) return;
    if (!force && this.flushDelayMs !== 0) return;
    if (this.#hasRows) this.#lastRows = this.options.clock.elapsed();
    else this.#lastIdle = this.options.clock.elapsed();
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
    await this.#spilling;
    if (this.#failure !== undefined) throw this.#failure;
    const open = (this.#spilled ??= this.writer.begin());
    const part = this.#runs.take('everything', this.options.clock.now());
    this.#spilledRows += this.#rowsOf(part);
    this.#spilling = open.append(part).then(
      () => this.#runs.release(part),
      (cause: unknown) => {
        this.#failure ??= failed(cause, part, this.#limitOf);
      },
    );
  }

  /** The offset behind the last record that this publisher has committed there; its marker may still be on the way. */
  committedEnd(topic: string, partition: number): number | undefined {
    return this.#ends.get(`${topic} ${partition}`);
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

  /** Gives up what is not complete. Throws when the last write was refused for good: that outranks the loss of a connection (P7). */
  async abandon(): Promise<void> {
    await this.#inFlight;
    await this.#spilling;
    const open = this.#spilled;
    this.#spilled = undefined;
    const aborted = await open?.abort();
    if (isFatal(this.#failure)) throw this.#failure;
    if (aborted?.outcome === 'aborted' && aborted.fenced === 'writer')
      throw notCommitted(aborted, this.writer.transactionalId);
  }

  #rowsOf(runs: readonly TakenRun[]): number {
    const beside = [this.options.transactionsTopic, ...(this.parking?.topics ?? [])];
    return runs.reduce((sum, { topic, count }) => (beside.includes(topic) ? sum : sum + count), 0);
  }

  async #write(): Promise<void> {
    const position: Position = { ...this.position, ...this.#progress!, phase: 'streaming' };
    const transactions = this.#transactions;
    const runs = this.#runs.take('complete', this.options.clock.now());
    const rows = this.#rowsOf(runs) + this.#spilledRows;
    const [spilled, spilling] = [this.#spilled, this.#spilling];
    const states = [...this.#states.values()];
    this.#states.clear();
    this.#transactions = 0;
    this.#spilledRows = 0;
    this.#spilled = undefined;
    this.#progress = undefined;
    // What arrives while this is in flight builds on the position that will be committed.
    this.position = position;
    const inputs = [...runs, ...states, positionRecord(this.options.positionTopic, this.options.name, position)];
    const outcome = spilled === undefined ? await this.writer.transact(inputs) : await finish(spilled, inputs);
    await spilling;
    if (this.#failure !== undefined) throw this.#failure;
    if (outcome.outcome !== 'committed') throw notCommitted(outcome, this.writer.transactionalId, runs, this.#limitOf);
    for (const { topic, partition, next } of outcome.appended) this.#ends.set(`${topic} ${partition}`, next);
    this.#runs.release(runs);
    this.onPublished({ position, rows, transactions });
    this.#inFlight = undefined;
  }
}

async function finish(transaction: LogTransaction, inputs: readonly LogInput[]): Promise<Outcome> {
  try {
    await transaction.append(inputs);
  } catch (error) {
    return transaction.abort(error);
  }
  return transaction.commit();
}
