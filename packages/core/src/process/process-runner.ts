import { randomUUID } from 'node:crypto';
import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import type {
  Assignment,
  FetchedBatch,
  Log,
  LogGroup,
  LogReader,
  LogRecord,
  LogWriter,
  PartitionOffset,
} from '../log/log.js';
import type { Health, Logger, Running } from '../lifecycle/running.js';
import { systemClock, type Clock } from '../clock/clock.js';
import { groupOf, type ProcessorDefinition } from './processor.js';
import { restore } from './restore.js';
import { Task } from './task.js';

export interface ProcessOptions {
  readonly log: Log;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Part of the transactional id. Stable per instance makes a take-over after a crash immediate. Default: random. */
  readonly instanceId?: string;
  /** Records per transaction at most. Default 1,000. */
  readonly maxBatchRecords?: number;
  /** Handling time per transaction at most, so that it ends well before its time-out. Default 500. */
  readonly maxBatchMs?: number;
}

const POLL_MS = 250;

/**
 * Runs a processor as one member of its group: exactly once, from topics to topics.
 *
 * Per batch one transaction holds the outputs, the state entries and the input offsets (P1). Any outcome but `committed` ends the
 * work on this assignment and starts it anew from what is committed: fence, read the stable offsets, restore. So there is one path for
 * a crash, a lost reply, a time-out and a rebalance.
 */
export class ProcessRunner implements Running {
  readonly #definition: ProcessorDefinition;
  readonly #options: ProcessOptions;
  readonly #clock: Clock;
  readonly #writer: LogWriter;
  readonly #group: LogGroup;
  readonly #run: Promise<void>;
  #tasks: ReadonlyMap<number, Task> = new Map();
  #status: Health['status'] = 'starting';
  #lastError: string | undefined;

  constructor(definition: ProcessorDefinition, options: ProcessOptions) {
    this.#definition = definition;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const groupId = groupOf(definition.name);
    this.#writer = options.log.writer({ transactionalId: `${groupId}.${options.instanceId ?? randomUUID()}` });
    this.#group = options.log.group({ groupId, topics: definition.inputs });
    this.#run = this.#group
      .run(
        (assignment) => this.#work(assignment),
        (error) => this.#failed(error),
      )
      .catch((error: unknown) => this.#ended(error));
  }

  /** The tasks of the present assignment, for inspection. */
  get tasks(): ReadonlyMap<number, Task> {
    return this.#tasks;
  }

  health(): Health {
    return {
      name: `processor ${this.#definition.name}`,
      status: this.#status,
      facts: { tasks: [...this.#tasks.keys()], lastError: this.#lastError },
    };
  }

  async stop(): Promise<void> {
    await this.#group.stop();
    await this.#run;
    await this.#writer.close();
    this.#status = 'down';
  }

  /** The group refuses us for good: the topics, the rights or the cluster are not as declared. The process goes on, its health tells. */
  #ended(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'down';
    this.#options.logger.error(`processor ${this.#definition.name} has stopped: ${this.#lastError}`);
  }

  #failed(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'starting';
    this.#options.logger.warn(
      `processor ${this.#definition.name} starts again from its committed state: ${this.#lastError}`,
    );
  }

  async #work(assignment: Assignment): Promise<void> {
    const { log } = this.#options;
    const tasks = new Map<number, Task>();
    for (const { partition } of assignment.partitions) {
      if (!tasks.has(partition)) tasks.set(partition, new Task(this.#definition, partition, this.#clock));
    }
    this.#tasks = tasks;
    // P7: fence, then offsets, then state: the offsets wait for our own predecessor's transaction, the state for the offsets.
    await this.#writer.fence();
    const committed = await log.admin.committedOffsets(assignment.membership.groupId, assignment.partitions);
    const positions = await restore(log, this.#definition.name, tasks, committed, this.#clock, assignment.signal);
    const reader = log.reader();
    try {
      const progress = new Progress(positions);
      for (const position of positions) reader.seek(position.topic, position.partition, position.next);
      this.#status = 'up';
      while (!assignment.signal.aborted) await this.#round(assignment, reader, tasks, progress);
    } finally {
      await reader.close();
    }
  }

  async #round(
    assignment: Assignment,
    reader: LogReader,
    tasks: ReadonlyMap<number, Task>,
    progress: Progress,
  ): Promise<void> {
    const batches = await reader.poll({ maxWaitMs: this.#pollMs(tasks), signal: assignment.signal });
    let queue = recordsOf(batches);
    do {
      const rest = await this.#handle(tasks, queue, assignment.signal);
      if (assignment.signal.aborted) return;
      progress.advance(queue.slice(0, queue.length - rest.length));
      await this.#commit(assignment, tasks, progress);
      queue = rest;
    } while (queue.length > 0);
  }

  /** Handles due timers and a slice of the queue; returns what is left of it. */
  async #handle(
    tasks: ReadonlyMap<number, Task>,
    queue: readonly LogRecord[],
    signal: AbortSignal,
  ): Promise<LogRecord[]> {
    const endsAt = this.#clock.now() + (this.#options.maxBatchMs ?? 500);
    const most = Math.min(queue.length, this.#options.maxBatchRecords ?? 1_000);
    for (const task of tasks.values()) await task.handleTimers();
    let handled = 0;
    while (handled < most && !signal.aborted && (handled === 0 || this.#clock.now() < endsAt)) {
      const record = queue[handled++]!;
      await tasks.get(record.partition)!.handle(record);
    }
    return queue.slice(handled);
  }

  /** P1: outputs, state and offsets in one transaction; P2: the state follows only a commit. */
  async #commit(assignment: Assignment, tasks: ReadonlyMap<number, Task>, progress: Progress): Promise<void> {
    const records = [...tasks.values()].flatMap((task) => task.outgoing());
    if (records.length === 0) return;
    const end = await this.#writer.transact(records, {
      membership: assignment.membership,
      offsets: progress.offsets(),
    });
    if (end.outcome !== 'committed') {
      throw new HeadwaterError(
        'PROCESS_COMMIT_FAILED',
        `the transaction ended ${end.outcome}: ${errorMessage(end.cause)}. It is repeated from the committed state.`,
        {
          retryable: true,
          cause: end.cause,
        },
      );
    }
    progress.committed();
    for (const task of tasks.values()) task.committed();
  }

  #pollMs(tasks: ReadonlyMap<number, Task>): number {
    let wait = POLL_MS;
    for (const task of tasks.values()) {
      const at = task.state.nextTimerAt();
      if (at !== undefined) wait = Math.min(wait, Math.max(0, at - this.#clock.now()));
    }
    return wait;
  }
}

function recordsOf(batches: readonly FetchedBatch[]): LogRecord[] {
  return batches.flatMap((batch) => [...batch.records]);
}

/** How far each input partition of an assignment is handled. */
class Progress {
  readonly #next = new Map<string, PartitionOffset>();
  readonly #changed = new Set<string>();

  constructor(positions: readonly PartitionOffset[]) {
    for (const position of positions) this.#next.set(`${position.topic}/${position.partition}`, position);
  }

  advance(handled: readonly LogRecord[]): void {
    for (const { topic, partition, offset } of handled) {
      this.#next.set(`${topic}/${partition}`, { topic, partition, next: offset + 1 });
      this.#changed.add(`${topic}/${partition}`);
    }
  }

  /** P8: never empty. A batch of timers alone carries an unchanged offset, so that a member that lost its partitions is refused there too. */
  offsets(): PartitionOffset[] {
    const changed = [...this.#changed].map((id) => this.#next.get(id)!);
    return changed.length > 0 ? changed : [...this.#next.values()].slice(0, 1);
  }

  committed(): void {
    this.#changed.clear();
  }
}
