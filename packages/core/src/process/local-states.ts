import type { Log } from '../log/log.js';
import type { Logger } from '../lifecycle/running.js';
import type { Clock } from '../clock/clock.js';
import { Follower } from './follower.js';
import { stateTopicOf } from './processor.js';
import type { OpenStateStore } from './state-store.js';
import { TaskState } from './task-state.js';

export interface LocalStatesContext {
  readonly log: Log;
  readonly processor: string;
  readonly open: OpenStateStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly tombstonesMs: number;
  /** Whether the states of partitions that others own are kept here too. */
  readonly standby: 'none' | 'all';
}

/**
 * The task states of this instance. They outlive assignments: what comes back, or was followed as a standby, is only brought up to date.
 * A state belongs to one of two at any time, the work on an assignment or the follower, never to both.
 */
export class LocalStates {
  readonly #context: LocalStatesContext;
  readonly #states = new Map<number, TaskState>();
  #owned: ReadonlySet<number> = new Set();
  #topicId: string | undefined;
  #partitionCount = 0;
  #follower: Follower | undefined;

  constructor(context: LocalStatesContext) {
    this.#context = context;
  }

  get partitionCount(): number {
    return this.#partitionCount;
  }

  /** The state of a partition, as far as it is here. Others own it while `isOwned` is false. */
  find(partition: number): { readonly state: TaskState; readonly isOwned: boolean } | undefined {
    const state = this.#states.get(partition);
    return state && { state, isOwned: this.#owned.has(partition) };
  }

  /** Takes the states of the given partitions out of the follower's hands, opens what is missing, and closes what is not wanted any more. */
  async take(partitions: readonly number[]): Promise<ReadonlyMap<number, TaskState>> {
    const { log, processor, standby } = this.#context;
    const topic = stateTopicOf(processor);
    await this.#follower?.stop();
    this.#follower = undefined;
    this.#owned = new Set();
    const topicId = (await log.admin.topicIds([topic])).get(topic);
    // Deleted and made again: what is here is of the one before.
    if (topicId !== this.#topicId) await this.#close([...this.#states.keys()]);
    this.#topicId = topicId;
    this.#partitionCount = (await log.admin.partitionCounts([topic])).get(topic) ?? 0;
    const wanted = standby === 'all' ? Array.from({ length: this.#partitionCount }, (_, n) => n) : partitions;
    await this.#close([...this.#states.keys()].filter((partition) => !wanted.includes(partition)));
    for (const partition of new Set([...partitions, ...wanted])) await this.#openState(partition);
    this.#owned = new Set(partitions);
    return new Map(partitions.map((partition) => [partition, this.#states.get(partition)!]));
  }

  /** Follows the states that are here and that nobody has taken. */
  followOthers(): void {
    const copies = new Map([...this.#states].filter(([partition]) => !this.#owned.has(partition)));
    if (copies.size === 0) return;
    const { log, clock, logger, tombstonesMs, processor } = this.#context;
    this.#follower = new Follower({ log, topic: stateTopicOf(processor), copies, clock, logger, tombstonesMs });
  }

  /** Resolves when the followed states include what was committed when following began. */
  async caughtUp(): Promise<void> {
    await this.#follower?.reached;
  }

  async close(): Promise<void> {
    await this.#follower?.stop();
    await this.#close([...this.#states.keys()]);
  }

  async #openState(partition: number): Promise<void> {
    if (this.#states.has(partition)) return;
    const { open, processor } = this.#context;
    const task = { processor, partition, ...(this.#topicId === undefined ? {} : { topicId: this.#topicId }) };
    this.#states.set(partition, await TaskState.open(await open(task)));
  }

  async #close(partitions: readonly number[]): Promise<void> {
    for (const partition of partitions) {
      await this.#states.get(partition)!.close();
      this.#states.delete(partition);
    }
  }
}
