import type { BufferPool } from '../log/buffer-pool.js';
import type { Clock } from '../clock/clock.js';
import { unlessAborted } from '../clock/unless-aborted.js';
import type { Logger } from '../lifecycle/running.js';
import type { Log, PartitionOffset, Share, Tenure } from '../log/log.js';
import { availablePositions } from './inputs.js';
import type { LocalStates } from './local-states.js';
import type { ProcessLoop } from './process-loop.js';
import { stateTopicOf, type ProcessorDefinition } from './processor.js';
import { restore, type RestoreProgress } from './restore.js';
import type { Suspects } from './suspects.js';
import type { Tables } from './tables.js';
import { Task } from './task.js';
import type { TaskState } from './task-state.js';
import {
  TOPOLOGY_ENTRY,
  decodeTopology,
  expectContinuable,
  inputsOf,
  remadeInputs,
  type Topology,
} from './topology.js';

export interface AdmissionContext {
  readonly definition: ProcessorDefinition;
  readonly topology: Topology;
  readonly tenure: Tenure;
  readonly loop: ProcessLoop;
  readonly log: Log;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly states: LocalStates;
  readonly tables: Tables;
  readonly suspects: Suspects;
  readonly buffers: BufferPool;
  readonly tombstonesMs: number;
  /** Called now and then while a restore has much left, and with undefined at its end. */
  readonly onProgress: (progress: RestoreProgress | undefined) => void;
  /** What was given is worked on; or nothing was, and nothing is coming. */
  readonly onSettled: () => void;
}

/** A task whose state is up to date, and where its inputs go on. */
interface RestoredTask {
  readonly task: Task;
  readonly inputs: readonly PartitionOffset[];
}

/**
 * Makes tasks of the shares of a tenure as they are given, beside those that run: reads the stable offsets, brings the states up to date (P7) and adds
 * the tasks to the loop. A share that is asked back before goes as it is; one that was worked on goes when the loop lets it go (P15).
 */
export class Admission {
  readonly #context: AdmissionContext;
  readonly #seen = new WeakSet<Share>();

  constructor(context: AdmissionContext) {
    this.#context = context;
  }

  /** Resolves when the tenure, or the work, is over. Rejects with what the work must end with. */
  async run(over: AbortSignal): Promise<void> {
    const { tenure, loop, onSettled } = this.#context;
    const isOver = () => over.aborted || tenure.signal.aborted;
    while (!isOver()) {
      if (this.#fresh().length === 0) {
        if (loop.tasks.size === 0) await this.#holdNothing();
        if (loop.tasks.size > 0 || tenure.coming.length === 0) onSettled();
        if (this.#fresh().length === 0) await unlessAborted(tenure.next(), over);
        continue;
      }
      const shares = this.#fresh();
      const restored = await this.#restore(shares, over);
      if (isOver()) return;
      for (const share of shares) {
        const { partition, signal } = share;
        const found = restored?.get(partition);
        if (!signal.aborted && found === undefined) continue;
        this.#seen.add(share);
        if (found === undefined) this.#leave(share);
        else loop.add(found.task, found.inputs, signal, () => this.#leave(share));
      }
    }
  }

  #fresh(): readonly Share[] {
    return this.#context.tenure.shares.filter((share) => !this.#seen.has(share));
  }

  #leave(share: Share): void {
    const { states, loop } = this.#context;
    // In this order: it may be given again at once.
    const left = states.leave(share.partition);
    share.release();
    left.catch((error: unknown) => loop.fail(error));
  }

  /** Keeps no state but those it follows. */
  async #holdNothing(): Promise<void> {
    const { states } = this.#context;
    await states.take([]);
    await states.followOthers();
  }

  /** Undefined: something of it was asked back, or the work is over. Until the offsets are known it goes by itself then. */
  async #restore(shares: readonly Share[], over: AbortSignal): Promise<ReadonlyMap<number, RestoredTask> | undefined> {
    const stopping = new AbortController();
    const stop = () => stopping.abort();
    const signals = [over, this.#context.tenure.signal, ...shares.map(({ signal }) => signal)];
    for (const signal of signals) signal.addEventListener('abort', stop);
    if (signals.some(({ aborted }) => aborted)) stop();
    try {
      return await this.#restoreUntil(stopping.signal, shares);
    } finally {
      for (const signal of signals) signal.removeEventListener('abort', stop);
    }
  }

  async #restoreUntil(
    signal: AbortSignal,
    shares: readonly Share[],
  ): Promise<ReadonlyMap<number, RestoredTask> | undefined> {
    const { definition, tenure, log, clock, states, tables, tombstonesMs, onProgress } = this.#context;
    const { name } = definition;
    if (signal.aborted) return undefined;
    await tables.open(signal);
    // The offset of the state topic counts the batches of timers, which move no input.
    const counted = shares.map(({ partition }) => ({ topic: stateTopicOf(name), partition }));
    const inputs = shares.flatMap(({ partitions }) => partitions);
    // They may wait long for a transaction of the former owner.
    const asking = log.admin.committedOffsets(tenure.membership.groupId, [...inputs, ...counted]);
    const committed = await unlessAborted(asking, signal);
    if (committed === undefined || signal.aborted) return undefined;
    for (const share of shares) share.take();
    const taken = await states.take(shares.map(({ partition }) => partition));
    const to = { log, processor: name, states: taken, committed, clock, tombstonesMs, signal, onProgress };
    const restored = await restore(to).finally(() => onProgress(undefined));
    if (signal.aborted) return undefined;
    const positions = await this.#positions(taken, restored);
    await states.followOthers();
    return new Map([...taken].map(([partition, state]) => [partition, this.#taskOf(partition, state, positions)]));
  }

  #taskOf(partition: number, state: TaskState, positions: readonly PartitionOffset[]): RestoredTask {
    const { definition, topology, clock, suspects, buffers } = this.#context;
    const task = new Task(definition, topology, partition, state, clock, suspects, buffers);
    const own = positions.filter((position) => position.partition === partition);
    for (const position of own) task.startAt(position);
    return { task, inputs: own.filter(({ topic }) => topic !== stateTopicOf(definition.name)) };
  }

  /** Where the inputs go on, once every state is known to be of this processor as it is declared. */
  #positions(
    states: ReadonlyMap<number, TaskState>,
    positions: readonly PartitionOffset[],
  ): Promise<PartitionOffset[]> {
    const { log, definition, topology, clock, logger } = this.#context;
    const remade = new Map<number, readonly string[]>();
    for (const [partition, state] of states) {
      const known = decodeTopology(state.get(TOPOLOGY_ENTRY));
      const includesOffsets = inputsOf(definition).some((topic) => state.includedOffset(topic) !== undefined);
      expectContinuable(known, topology, includesOffsets);
      remade.set(partition, remadeInputs(known, topology));
    }
    const isRemade = ({ topic, partition }: PartitionOffset) => remade.get(partition)!.includes(topic);
    return availablePositions({ log, definition, positions, isRemade, clock, logger });
  }
}
