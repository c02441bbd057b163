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
 * The task states of this instance. They outlive the work on them: what is taken again, or was followed as a standby, is only brought up to
 * date. A state belongs to one of two at any time, a task or the follower, never to both.
 */
export class LocalStates {
  readonly #context: LocalStatesContext;
  readonly #states = new Map<number, TaskState>();
  readonly #owned = new Set<number>();
  #topicId: string | undefined;
  #partitionCount = 0;
  #follower: Follower | undefined;
  /** One change at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(context: LocalStatesContext) {
    this.#context = context;
  }

  get partitionCount(): number {
    return this.#partitionCount;
  }

  /** The state of a partition, as far as it is here. Others own it while `isOwned` is false. */
  find(partition: number): { readonly state: TaskState; readonly isOwned: boolean } | undefined {
    const state = this.#states.get(partition);
    if (!this.#owned.has(partition) && !this.#follows) return undefined;
    return state && { state, isOwned: this.#owned.has(partition) };
  }

  /** The work begins, and owns nothing yet: what others own is followed. */
  begin(): Promise<void> {
    return this.#inTurn(async () => {
      const { log, processor } = this.#context;
      const topic = stateTopicOf(processor);
      await this.#unfollow();
      this.#owned.clear();
      const topicId = (await log.admin.topicIds([topic])).get(topic);
      // Deleted and made again: what is here is of the one before.
      if (topicId !== this.#topicId) await this.#close([...this.#states.keys()]);
      this.#topicId = topicId;
      this.#partitionCount = (await log.admin.partitionCounts([topic])).get(topic) ?? 0;
      await this.#open(this.#followed);
      this.#follow();
    });
  }

  /**
   * Takes the states of the given partitions out of the follower's hands, opens what is missing, and closes what is neither owned nor followed.
   * The follower rests until `followOthers`.
   */
  take(partitions: readonly number[]): Promise<ReadonlyMap<number, TaskState>> {
    return this.#inTurn(async () => {
      await this.#unfollow();
      for (const partition of partitions) this.#owned.add(partition);
      const wanted = new Set([...partitions, ...this.#owned, ...this.#followed]);
      await this.#close([...this.#states.keys()].filter((partition) => !wanted.has(partition)));
      await this.#open(wanted);
      return new Map(partitions.map((partition) => [partition, this.#states.get(partition)!]));
    });
  }

  /** Leaves the state of a partition to its next owner. */
  leave(partition: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#owned.delete(partition);
      if (!this.#follows) return this.#close([partition]);
      await this.#unfollow();
      this.#follow();
    });
  }

  /** Follows the states that are here and that nobody has taken. */
  followOthers(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#unfollow();
      this.#follow();
    });
  }

  /** Resolves when the followed states include what was committed when following began. */
  async caughtUp(): Promise<void> {
    for (;;) {
      await this.#turn;
      const follower = this.#follower;
      await follower?.reached;
      await this.#turn;
      // One that was stopped is followed by another.
      if (follower === this.#follower) return;
    }
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#unfollow();
      await this.#close([...this.#states.keys()]);
    });
  }

  get #followed(): readonly number[] {
    return this.#follows ? Array.from({ length: this.#partitionCount }, (_, n) => n) : [];
  }

  get #follows(): boolean {
    return this.#context.standby === 'all';
  }

  async #unfollow(): Promise<void> {
    await this.#follower?.stop();
    this.#follower = undefined;
  }

  /** What others own. */
  #follow(): void {
    if (!this.#follows) return;
    const copies = new Map([...this.#states].filter(([partition]) => !this.#owned.has(partition)));
    if (copies.size === 0) return;
    const { log, clock, logger, tombstonesMs, processor } = this.#context;
    this.#follower = new Follower({ log, topic: stateTopicOf(processor), copies, clock, logger, tombstonesMs });
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const changed = this.#turn.then(change);
    this.#turn = changed.catch(() => undefined);
    return changed;
  }

  /** At once: each may have to read its disk. */
  async #open(partitions: Iterable<number>): Promise<void> {
    const missing = [...partitions].filter((partition) => !this.#states.has(partition));
    const opened = await Promise.allSettled(missing.map((partition) => this.#openState(partition)));
    // One that failed waited for all others: each may be opened again, or closed.
    throwFirst(opened);
  }

  async #openState(partition: number): Promise<void> {
    const { open, processor } = this.#context;
    const task = { processor, partition, ...(this.#topicId === undefined ? {} : { topicId: this.#topicId }) };
    this.#states.set(partition, await TaskState.open(await open(task)));
  }

  async #close(partitions: readonly number[]): Promise<void> {
    const closed = await Promise.allSettled(partitions.map(async (partition) => this.#states.get(partition)?.close()));
    for (const partition of partitions) this.#states.delete(partition);
    throwFirst(closed);
  }
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
