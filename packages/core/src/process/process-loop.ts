import type { Clock } from '../clock/clock.js';
import { Wakeup } from '../clock/wakeup.js';
import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import type { LogInput } from '../log/record-run.js';
import type { LogReader, LogWriter, Outcome, PartitionOffset, Tenure } from '../log/log.js';
import { FairShare } from './fair-share.js';
import type { Pause } from './pause.js';
import { stateTopicOf } from './processor.js';
import { isRecordFault, type OwnTopics, type Suspects } from './suspects.js';
import type { Room, Sealed, Task } from './task.js';

export interface BatchLimits {
  readonly maxBatchRecords: number;
  readonly maxBatchBytes: number;
  readonly maxBatchMs: number;
}

/** One finished transaction, for figures. */
export interface Committed {
  readonly units: number;
  readonly parked: number;
}

export interface LoopContext {
  readonly processor: string;
  readonly topics: OwnTopics;
  readonly tenure: Pick<Tenure, 'membership' | 'signal'>;
  readonly reader: LogReader;
  readonly writer: LogWriter;
  readonly clock: Clock;
  readonly suspects: Suspects;
  readonly limits: BatchLimits;
  readonly onCommitted: (committed: Committed) => void;
  /** Until when, by the clock's elapsed time, the end waits for records that are in work; Infinity: for as long as they take. Asked again and again. */
  readonly drainsUntil: () => number;
  /** The work has failed, and ends when what is in work has, or `drainsUntil` has come. */
  readonly onFailing: (error: unknown) => void;
  /** The end did not wait for the records that these partitions were in. */
  readonly onAbandoned: (partitions: readonly number[]) => void;
  /** Nothing comes of this partition for now; told once, until something has come of it. */
  readonly onUnreadable: (partition: number, error: unknown) => void;
  /** While paused nothing is handled; what was handled is still committed. */
  readonly pause: Pause;
  /** Rejects when the work must end for a reason that lies outside of it. */
  readonly watch: (signal: AbortSignal) => Promise<void>;
}

const POLL_MS = 250;
const HELD_POLL_MS = 5;
/** A task that waits longer for one record is slow: transactions neither wait for it nor take it into account. */
const SLOW_MS = 5;
/** A position that moved over offsets without records is committed after this, so that an idle group shows no lag. */
const IDLE_COMMIT_MS = 1_000;

/**
 * The running part of a processor's work, from task to task as they come and go. Three things go on at once: fetching, handling, committing. A transaction takes what
 * was handled while the one before was under way: on an idle line that is one record, under load thousands (group commit).
 * A task in the middle of a slow record does not hold up the transactions of the others.
 */
export class ProcessLoop {
  readonly #context: LoopContext;
  readonly #wakeup: Wakeup;
  readonly #room: Room = { left: 0, bytes: 0 };
  readonly #tasks = new Map<number, Task>();
  readonly #fairShare: FairShare;
  readonly #pumping = new Map<Task, Promise<void>>();
  /** Asked back: these stop after their record, and go once that is committed. With what to call then. */
  readonly #retiring = new Map<Task, () => void>();
  /** Left out of a transaction: these stop after their record, so that the next one takes them. */
  readonly #owed = new Set<Task>();
  readonly #stopping = new AbortController();
  /** A share outlives many loops: what this one listens for on it ends with the loop. */
  readonly #forget = new Map<Task, () => void>();
  #closing = false;
  #abandoned = false;
  /** The log refused a transaction of a member that has lost its place: what was handled on top of that must not be committed. */
  #lost = false;
  #committing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #batches = 0;
  #openedAt: number | undefined;
  #movedAt: number | undefined;
  /** Ends the fetch under way: it is not for all tasks. */
  #refetch = new AbortController();

  constructor(context: LoopContext) {
    this.#context = context;
    this.#wakeup = new Wakeup(context.clock);
    this.#fairShare = new FairShare(context.reader, this.#tasks);
    this.#widen();
  }

  get tasks(): ReadonlyMap<number, Task> {
    return this.#tasks;
  }

  /** Of which partitions nothing comes, and why. */
  get unreadable(): ReadonlyMap<number, HeadwaterError> {
    return this.#fairShare.unreadable;
  }

  /**
   * Works on a task too, from these offsets of its inputs on, until `asked` aborts; then `retired` is called, as soon as everything that was handled is
   * committed. The others do not notice.
   */
  add(task: Task, from: readonly PartitionOffset[], asked: AbortSignal, retired: () => void): void {
    if (asked.aborted) return retired();
    const retire = () => {
      this.#retiring.set(task, retired);
      this.#wakeup.wake();
    };
    asked.addEventListener('abort', retire, { once: true });
    this.#forget.set(task, () => asked.removeEventListener('abort', retire));
    this.#tasks.set(task.partition, task);
    this.#fairShare.add(task, from);
    this.#refetch.abort();
    this.#wakeup.wake();
  }

  /** Ends the work with this error. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wakeup.wake();
  }

  /** Resolves when the tenure's signal aborts, after what was handled is committed. Rejects when a transaction or a fetch failed. */
  async run(): Promise<void> {
    const { signal } = this.#context.tenure;
    const wake = () => this.#wakeup.wake();
    signal.addEventListener('abort', wake);
    const unsubscribe = this.#context.pause.subscribe(wake);
    const watching = this.#context.watch(this.#stopping.signal).catch((error: unknown) => this.fail(error));
    const intake = this.#intake().catch((error: unknown) => this.fail(error));
    try {
      while (!signal.aborted) {
        this.#retire();
        this.#startPumps();
        if (this.#isAtRest()) this.#context.pause.rest();
        if (this.#failure !== undefined) throw this.#failure.error;
        if (this.#isRipe()) await this.#commitNext();
        else await this.#wakeup.sleep(this.#patienceMs());
      }
      await this.#drain();
    } catch (error) {
      await this.#giveUp(error);
      throw error;
    } finally {
      signal.removeEventListener('abort', wake);
      unsubscribe();
      for (const forget of this.#forget.values()) forget();
      this.#closing = true;
      this.#stopping.abort();
      this.#refetch.abort();
      await Promise.all([...(this.#abandoned ? [] : this.#pumping.values()), this.#committing, intake, watching]);
    }
  }

  async #intake(): Promise<void> {
    const { reader, clock } = this.#context;
    const stopping = this.#stopping.signal;
    while (!stopping.aborted) {
      const { signal } = (this.#refetch = new AbortController());
      const { canRead, hasFull } = this.#fairShare.balance(clock.elapsed());
      if (!canRead) {
        await clock.wait(hasFull ? 1 : POLL_MS, signal);
        continue;
      }
      // What is held back may be wanted again at any time: a long poll for the others must not keep it away.
      // As much as there is: the tasks work on all of it at once.
      const maxWaitMs = hasFull ? HELD_POLL_MS : POLL_MS;
      const polling = reader.poll({ maxWaitMs, maxBytes: Infinity, signal });
      const batches = await polling.catch((error: unknown) => this.#letRest(error));
      for (const batch of batches) this.#fairShare.take(batch);
      if (batches.length > 0) this.#wakeup.wake();
    }
  }

  /** One partition cannot be read: the others go on. */
  #letRest(error: unknown): readonly [] {
    const resting = this.#fairShare.letRest(error, this.#context.clock.elapsed());
    if (resting === undefined) throw error;
    if (resting.attempts === 1) this.#context.onUnreadable(resting.partition, error);
    return [];
  }

  /** P15: a task goes when nothing of it is in work, handled and not committed, or being committed. */
  #retire(): void {
    for (const [task, retired] of this.#retiring) {
      if (this.#pumping.has(task) || !task.isSettled) continue;
      this.#retiring.delete(task);
      this.#forget.delete(task);
      this.#owed.delete(task);
      this.#tasks.delete(task.partition);
      this.#fairShare.remove(task);
      retired();
    }
  }

  #startPumps(): void {
    if (this.#closing || this.#context.pause.isPaused) return;
    for (const task of this.#inTurn()) {
      if (this.#room.left <= 0) return;
      if (this.#pumping.has(task) || this.#mayNotBegin(task) || !task.hasWork) continue;
      const pumping = task
        .pump(this.#room, () => this.#closing || this.#mayNotBegin(task) || this.#context.pause.isPaused)
        .catch((error: unknown) => this.fail(error))
        .then(() => {
          this.#pumping.delete(task);
          this.#wakeup.wake();
        });
      this.#pumping.set(task, pumping);
    }
  }

  /** Another task first in each batch: a busy one could fill it, one unit for one that may be refused (P11), and the others would never have their turn. */
  #inTurn(): readonly Task[] {
    const tasks = [...this.#tasks.values()];
    const first = this.#batches % Math.max(1, tasks.length);
    return [...tasks.slice(first), ...tasks.slice(0, first)];
  }

  /** It goes, or the next transaction has to take it first. */
  #mayNotBegin(task: Task): boolean {
    return this.#owed.has(task) || this.#retiring.has(task);
  }

  /** Paused, and everything that was handled is committed. */
  #isAtRest(): boolean {
    if (!this.#context.pause.isPaused || this.#pumping.size > 0 || this.#committing !== undefined) return false;
    return ![...this.#tasks.values()].some(({ units }) => units > 0);
  }

  /** Whether the next transaction is to begin now. */
  #isRipe(): boolean {
    if (this.#committing !== undefined) return false;
    const now = this.#context.clock.elapsed();
    const tasks = [...this.#tasks.values()];
    // A task rests until it is committed.
    if (tasks.some((task) => this.#mayNotBegin(task) && !this.#pumping.has(task) && !task.isSettled)) return true;
    // A transaction goes without the slow ones: it needs somebody else's work.
    const ready = tasks.filter((task) => !this.#pumping.has(task) || !this.#isSlow(task));
    if (ready.some(({ units }) => units > 0)) {
      this.#openedAt ??= now;
      const caughtUp = !ready.some((task) => this.#pumping.has(task) || (task.hasWork && !this.#retiring.has(task)));
      return caughtUp || this.#room.left <= 0 || now - this.#openedAt >= this.#context.limits.maxBatchMs;
    }
    if (!ready.some((task) => task.hasMoved && !this.#pumping.has(task))) return false;
    this.#movedAt ??= now;
    return now - this.#movedAt >= IDLE_COMMIT_MS;
  }

  async #commitNext(): Promise<void> {
    const { clock } = this.#context;
    const endsAt = clock.elapsed() + SLOW_MS;
    await this.#quiet(
      () => endsAt,
      (task) => !this.#isSlow(task),
    );
    const parts = this.#seal();
    if (parts.length === 0) return;
    this.#committing = this.#commit(parts)
      .catch((error: unknown) => this.fail(error))
      .then(() => {
        this.#committing = undefined;
        this.#wakeup.wake();
      });
  }

  /** Asks the tasks to stop after their present record, and waits for those that are to be waited for. */
  async #quiet(endsAt: () => number, isWaitedFor: (task: Task) => boolean): Promise<void> {
    this.#closing = true;
    const leftMs = () => endsAt() - this.#context.clock.elapsed();
    while ([...this.#pumping.keys()].some(isWaitedFor) && leftMs() > 0)
      await this.#wakeup.sleep(Math.min(leftMs(), POLL_MS));
    this.#closing = false;
  }

  #isSlow(task: Task): boolean {
    return this.#context.clock.elapsed() - (task.waitingSince ?? Infinity) >= SLOW_MS;
  }

  #seal(): [Task, Sealed][] {
    const parts: [Task, Sealed][] = [];
    for (const task of this.#tasks.values()) {
      if (this.#pumping.has(task)) {
        // It did not make it: the next transaction takes it.
        this.#owed.add(task);
        continue;
      }
      this.#owed.delete(task);
      const sealed = task.seal();
      if (sealed !== undefined) parts.push([task, sealed]);
    }
    this.#openedAt = undefined;
    this.#movedAt = undefined;
    this.#widen();
    return parts;
  }

  /** P1: outputs, state and offsets in one transaction; P2: the state follows only a commit. */
  async #commit(parts: readonly (readonly [Task, Sealed])[]): Promise<void> {
    const { writer, tenure, processor, suspects, onCommitted } = this.#context;
    const all = parts.map(([, sealed]) => sealed);
    const units = all.reduce((sum, sealed) => sum + sealed.units, 0);
    const parked = all.reduce((sum, sealed) => sum + sealed.parked, 0);
    const last = all.find((sealed) => sealed.units > 0)?.last;
    const end = await writer.transact(
      all.length === 1 ? all[0]!.records : ([] as LogInput[]).concat(...all.map(({ records }) => records)),
      { membership: tenure.membership, offsets: all.flatMap(({ offsets }) => offsets) },
    );
    if (end.outcome !== 'committed') {
      // The partitions were lost before they could be given back: their next owner repeats this.
      if (end.outcome === 'aborted' && end.fenced === 'member' && tenure.signal.aborted) {
        this.#lost = true;
        return;
      }
      if (last !== undefined && isRefused(end, this.#context.topics)) suspects.refused(units, last, end.cause);
      throw commitFailed(processor, end);
    }
    const stamps = new Map(
      end.appended
        .filter(({ topic }) => topic === stateTopicOf(processor))
        .map(({ partition, next }) => [partition, next]),
    );
    for (const [task] of parts) await task.committed(stamps.get(task.partition));
    if (last !== undefined) suspects.committed(units, last);
    onCommitted({ units, parked });
  }

  /** What is in work has nobody to be committed for. It is waited for all the same: nobody handles a record while somebody else does, unless that takes too long. */
  async #giveUp(error: unknown): Promise<void> {
    if (this.#abandoned) return;
    this.#context.onFailing(error);
    await this.#settle();
  }

  /** Waits for all records in work, and leaves behind those that take too long. */
  async #settle(): Promise<void> {
    const { drainsUntil, onAbandoned } = this.#context;
    await this.#quiet(drainsUntil, () => true);
    this.#closing = true;
    this.#abandoned = this.#pumping.size > 0;
    if (this.#abandoned) onAbandoned([...this.#pumping.keys()].map(({ partition }) => partition));
  }

  /** The work ends: what was handled is committed; what was not, or is in a record that takes too long, is left to the next owner. */
  async #drain(): Promise<void> {
    await this.#settle();
    await this.#committing;
    if (this.#failure !== undefined) throw this.#failure.error;
    const parts = this.#lost ? [] : this.#seal();
    if (parts.length > 0) await this.#commit(parts);
  }

  #patienceMs(): number {
    const { clock, limits } = this.#context;
    let patienceMs = POLL_MS;
    for (const task of this.#tasks.values()) patienceMs = Math.min(patienceMs, task.nextTimerAt - clock.now());
    for (const { waitingSince = Infinity } of this.#pumping.keys()) {
      const quickForMs = waitingSince + SLOW_MS - clock.elapsed();
      if (quickForMs > 0) patienceMs = Math.min(patienceMs, quickForMs);
    }
    if (this.#committing === undefined && this.#openedAt !== undefined)
      patienceMs = Math.min(patienceMs, this.#openedAt + limits.maxBatchMs - clock.elapsed());
    return Math.max(1, patienceMs);
  }

  /** A new batch begins. P11: units that the log may refuse go alone, also when one was in work while others were committed. */
  #widen(): void {
    this.#batches++;
    const { suspects, limits } = this.#context;
    this.#room.bytes = limits.maxBatchBytes;
    const waiting = [...this.#tasks.values()].some(({ units }) => units > 0);
    if (suspects.narrowing) this.#room.left = waiting ? 0 : 1;
    else this.#room.left = limits.maxBatchRecords;
  }
}

function isRefused(end: Exclude<Outcome, { outcome: 'committed' }>, topics: OwnTopics): boolean {
  return end.outcome === 'aborted' && end.fenced === undefined && isRecordFault(end.cause, topics);
}

function commitFailed(processor: string, end: Exclude<Outcome, { outcome: 'committed' }>): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_COMMIT_FAILED',
    `the transaction ended ${end.outcome}: ${errorMessage(end.cause)}. It is repeated from the committed state.`,
    { retryable: true, cause: end.cause, facts: { processor, outcome: end.outcome } },
  );
}
