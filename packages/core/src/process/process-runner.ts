import { randomUUID } from 'node:crypto';
import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import { BufferPool } from '../log/buffer-pool.js';
import type { GroupOptions, Log, LogWriter, Tenure } from '../log/log.js';
import { partitionOf } from '../log/partitioner.js';
import type { Health, Logger, Running } from '../lifecycle/running.js';
import type { Metric } from '../lifecycle/metric.js';
import { systemClock, type Clock } from '../clock/clock.js';
import type { Table } from './global-table.js';
import { Admission } from './admission.js';
import { findTopics, watchTopics } from './inputs.js';
import { LocalStates } from './local-states.js';
import { Member } from './member.js';
import { Pause } from './pause.js';
import { ProcessLoop } from './process-loop.js';
import { processMetrics } from './process-metrics.js';
import { groupOf, parkedTopicOf, stateTopicOf, type ProcessorDefinition } from './processor.js';
import type { RestoreProgress } from './restore.js';
import { memoryStore, type OpenStateStore } from './state-store.js';
import { Suspects } from './suspects.js';
import { Tables, withTables } from './tables.js';
import type { Task } from './task.js';
import { neededTopics, topologyOf } from './topology.js';

export interface ProcessOptions {
  readonly log: Log;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Part of the transactional id. Stable per instance makes a take-over after a crash immediate. Default: random. */
  readonly instanceId?: string;
  /** Records and timers per transaction at most. Default 4,000. */
  readonly maxBatchRecords?: number;
  /** Bytes that the handlers of a transaction write and send, at most: the record that reaches it is the last. Default 8,000,000. */
  readonly maxBatchBytes?: number;
  /** How long a transaction may wait for more records while there are more to handle. Default 100. */
  readonly maxBatchMs?: number;
  /** Where the tasks keep their state. Default: in memory. */
  readonly openStore?: OpenStateStore;
  /**
   * How long `stop`, or the end of work that failed, waits for a record that is in work. Then nothing of it is kept, and it is handled again from its start, maybe
   * while its first handler still runs. Default 30,000.
   */
  readonly drainTimeoutMs?: number;
  /**
   * `all`: this instance also keeps the states of the partitions that others own, so that it can take any of them over at once, at the cost
   * of reading all state topics and holding all states. Choose it when a restore would take too long. Default `none`.
   */
  readonly standby?: 'none' | 'all';
  /** `delete.retention.ms` of the state topic and the tables: copies that are older are read from the start. Default 24 hours, as Kafka's. */
  readonly tombstonesMs?: number;
  /** How this instance is a member of its group. See GroupOptions for each. */
  readonly group?: Pick<GroupOptions, 'sessionTimeoutMs' | 'rebalanceTimeoutMs' | 'instanceId'>;
}

/** What this instance knows of a key. */
export interface LocalValue {
  readonly partition: number;
  /** `owner`: as of its last commit. `standby`: as far as it has followed the owner. `elsewhere`: not here, ask another instance. */
  readonly at: 'owner' | 'standby' | 'elsewhere';
  /** Undefined: the key has no state, or the state is elsewhere. */
  readonly value: Buffer | undefined;
  /** The offset of the state topic that the answer includes. */
  readonly stamp: number;
}

const TOMBSTONES_MS = 24 * 3_600_000;
const DRAIN_TIMEOUT_MS = 30_000;

/**
 * Runs a processor as one member of its group: exactly once, from topics to topics.
 *
 * Per batch one transaction holds the outputs, the state entries and the input offsets (P1). Any outcome but `committed` ends the
 * work and starts it anew from what is committed: fence, read the stable offsets, restore. So there is one path for a crash, a lost
 * reply, a time-out and a lost membership. Partitions come and go while the others are worked on: what comes is restored beside them, what is
 * asked back goes once it is committed. The states of tasks outlive the work: what stays with this instance is only brought up to date, not
 * read again. What only a person can mend (a lost input, a changed partition count, a foreign state, a failure under `onFailure: 'stop'`)
 * halts it: it leaves its group, its health is down until it is started again, and nothing is lost.
 */
export class ProcessRunner implements Running {
  readonly #definition: ProcessorDefinition;
  readonly #options: ProcessOptions;
  readonly #clock: Clock;
  readonly #writer: LogWriter;
  readonly #member: Member;
  readonly #pause = new Pause();
  readonly #suspects = new Suspects();
  readonly #buffers = new BufferPool();
  readonly #states: LocalStates;
  readonly #tables: Tables;
  readonly #counts = { handled: 0, parked: 0, transactions: 0, restarts: 0 };
  #working = false;
  readonly #drainTimeoutMs: number;
  /** Asked to stop, it waits until then for what is in work. */
  #stopsAt = Infinity;
  #loop: Pick<ProcessLoop, 'tasks' | 'unreadable'> = { tasks: new Map(), unreadable: new Map() };
  #restoring: RestoreProgress | undefined;
  #status: Health['status'] = 'starting';
  #lastError: string | undefined;

  constructor(definition: ProcessorDefinition, options: ProcessOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#drainTimeoutMs = options.drainTimeoutMs ?? DRAIN_TIMEOUT_MS;
    const { log, logger } = options;
    const shared = { log, logger, clock: this.#clock, tombstonesMs: options.tombstonesMs ?? TOMBSTONES_MS };
    this.#tables = new Tables({ ...shared, topics: definition.tables ?? [] });
    this.#states = new LocalStates({
      ...shared,
      processor: definition.name,
      open: options.openStore ?? memoryStore,
      standby: options.standby ?? 'none',
    });
    this.#definition = withTables(definition, this.#tables);
    const groupId = groupOf(definition.name);
    this.#writer = options.log.writer({ transactionalId: `${groupId}.${options.instanceId ?? randomUUID()}` });
    this.#member = new Member(this.#definition, {
      log,
      logger,
      clock: this.#clock,
      group: options.group ?? {},
      work: (tenure) => this.#work(tenure),
      onFailure: (error) => this.#failed(error),
      onEnd: (error) => this.#ended(error),
    });
  }

  get name(): string {
    return this.#definition.name;
  }

  /** The tasks that are worked on, for inspection. */
  get tasks(): ReadonlyMap<number, Task> {
    return this.#loop.tasks;
  }

  /**
   * A table this instance keeps whole. Throws PROCESS_TABLE_UNKNOWN for one that is not declared, and before the first assignment.
   */
  table(topic: string): Table {
    return this.#tables.table(topic);
  }

  /** The committed state of a key, as far as it is on this instance. Before the first assignment everything is elsewhere. */
  get(key: string): LocalValue {
    const partition = partitionOf(Buffer.from(key), Math.max(1, this.#states.partitionCount));
    const found = this.#states.find(partition);
    if (found === undefined) return { partition, at: 'elsewhere', value: undefined, stamp: 0 };
    const { state, isOwned } = found;
    return { partition, at: isOwned ? 'owner' : 'standby', value: state.get(`s:${key}`), stamp: state.stamp };
  }

  /** Resolves when the states of others that this instance keeps have caught up with what was committed at the last assignment. */
  standbyReady(): Promise<void> {
    return this.#states.caughtUp();
  }

  health(): Health {
    const { tasks, unreadable } = this.#loop;
    return {
      name: `processor ${this.#definition.name}`,
      // The partitions that can be read are worked on: no reason to take the instance out.
      status: this.#status === 'up' && tasks.size > 0 && unreadable.size === tasks.size ? 'down' : this.#status,
      facts: {
        tasks: [...tasks.keys()],
        unreadable: Object.fromEntries([...unreadable].map(([partition, { message }]) => [partition, message])),
        ...this.#counts,
        restoring: this.#restoring,
        paused: this.#pause.isPaused,
        lag: Object.fromEntries([...tasks].map(([partition, task]) => [partition, task.lag])),
        parkedSequences: [...tasks.values()].reduce((sum, task) => sum + task.state.parkedSequences, 0),
        lastError: this.#lastError,
      },
    };
  }

  /** What a Prometheus page shows of it. */
  metrics(): readonly Metric[] {
    const { tasks, unreadable } = this.#loop;
    const [up, counts, restoring] = [this.health().status === 'up', this.#counts, this.#restoring];
    return processMetrics(this.#definition.name, { up, counts, tasks, unreadable, restoring });
  }

  /**
   * Handles nothing more, and keeps its partitions. Resolves when everything that was handled is committed. Timers that become due
   * meanwhile fire after `resume()`.
   */
  async pause(): Promise<void> {
    const atRest = this.#pause.pause();
    if (!this.#working) this.#pause.rest();
    await atRest;
  }

  resume(): void {
    this.#pause.resume();
  }

  /** Commits what was handled, leaves the group and closes. May be called twice. */
  async stop(): Promise<void> {
    this.#stopsAt = Math.min(this.#stopsAt, this.#clock.elapsed() + this.#drainTimeoutMs);
    await this.#member.stop();
    await this.#writer.close();
    await this.#states.close();
    await this.#tables.close();
    this.#status = 'down';
  }

  /** The group, the topics or the state refuse us for good. The process goes on, its health tells. */
  #ended(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'down';
    this.#options.logger.error(`processor ${this.#definition.name} has stopped: ${this.#lastError}`);
  }

  #failing(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'starting';
  }

  #unreadable(partition: number, error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#options.logger.error(
      `processor ${this.#definition.name} cannot read partition ${partition}, goes on with its others and tries again: ${this.#lastError}`,
    );
  }

  #abandoned(partitions: readonly number[]): void {
    const { name } = this.#definition;
    const drainTimeoutMs = this.#drainTimeoutMs;
    const error = new HeadwaterError(
      'PROCESS_DRAIN_TIMED_OUT',
      `processor ${name}, partition ${partitions.join(', ')}: a record was still in work ${drainTimeoutMs} ms after the end of the work. Nothing of it is kept, the next owner handles it again. ` +
        'Make its handler shorter, or raise drainTimeoutMs.',
      { facts: { processor: name, partitions, drainTimeoutMs } },
    );
    this.#lastError = error.message;
    this.#options.logger.warn(error.message);
  }

  #failed(error: unknown): void {
    this.#counts.restarts++;
    this.#lastError = errorMessage(error);
    this.#status = 'starting';
    this.#options.logger.warn(
      `processor ${this.#definition.name} starts again from its committed state: ${this.#lastError}`,
    );
  }

  async #work(tenure: Tenure): Promise<void> {
    const { log, logger, tombstonesMs = TOMBSTONES_MS } = this.#options;
    const { maxBatchRecords = 4_000, maxBatchBytes = 8_000_000, maxBatchMs = 100 } = this.#options;
    const definition = this.#definition;
    const topology = topologyOf(definition, await findTopics(log, definition));
    // P7: fence, then offsets, then state: the offsets wait for our own predecessor's transaction, the state for the offsets.
    await this.#writer.fence();
    await this.#states.begin();
    if (tenure.signal.aborted) return;
    const reader = log.reader();
    const over = new AbortController();
    let failsAt = Infinity;
    const loop = new ProcessLoop({
      processor: definition.name,
      topics: {
        needed: neededTopics(definition),
        internal: [stateTopicOf(definition.name), parkedTopicOf(definition.name)],
      },
      tenure,
      reader,
      writer: this.#writer,
      clock: this.#clock,
      suspects: this.#suspects,
      limits: { maxBatchRecords, maxBatchBytes, maxBatchMs },
      onCommitted: ({ units, parked }) => {
        this.#counts.transactions++;
        this.#counts.handled += units;
        this.#counts.parked += parked;
      },
      drainsUntil: () => Math.min(this.#stopsAt, failsAt),
      onFailing: (error) => {
        failsAt = this.#clock.elapsed() + this.#drainTimeoutMs;
        this.#failing(error);
      },
      onAbandoned: (partitions) => this.#abandoned(partitions),
      onUnreadable: (partition, error) => this.#unreadable(partition, error),
      pause: this.#pause,
      watch: (signal) => watchTopics(log, definition, topology, this.#clock, signal),
    });
    this.#loop = loop;
    this.#working = true;
    const admission = new Admission({
      definition,
      topology,
      tenure,
      loop,
      log,
      logger,
      clock: this.#clock,
      states: this.#states,
      tables: this.#tables,
      suspects: this.#suspects,
      buffers: this.#buffers,
      tombstonesMs,
      onProgress: (progress) => this.#restores(progress),
      onSettled: () => (this.#status = 'up'),
    });
    const admitting = admission.run(over.signal).catch((error: unknown) => loop.fail(error));
    try {
      await loop.run();
    } finally {
      this.#working = false;
      this.#pause.rest();
      over.abort();
      await admitting;
      this.#restoring = undefined;
      await reader.close();
    }
  }

  #restores(progress: RestoreProgress | undefined): void {
    this.#restoring = progress;
    if (progress === undefined) return;
    this.#options.logger.log(
      `processor ${this.#definition.name} restores its state: ${progress.done} of ${progress.total} offsets.`,
    );
  }
}
