import { HeadwaterError, type Assignment, type GroupOptions, type LogGroup } from '@headwater/core';
import type { Connection } from './connection.js';
import type { MemoryCluster } from './memory-cluster.js';
import type { Standing } from './group-state.js';
import { groupRunsAlready, instanceFenced } from './refusals.js';

const FIRST_BACKOFF_MS = 200;
const LAST_BACKOFF_MS = 5_000;

type Work = (assignment: Assignment) => Promise<void>;

export class MemoryGroup implements LogGroup {
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;
  readonly #groupId: string;
  readonly #instanceId: string | undefined;
  readonly #topics: readonly string[];
  readonly #sessionTimeoutMs: number;
  readonly #rebalanceTimeoutMs: number;
  readonly #stopping = new AbortController();
  readonly #stoppable = { order: 0, stop: () => this.stop() } as const;
  #memberId: string | undefined;
  #owned: readonly number[] = [];
  #running: Promise<void> | undefined;
  #endSilence: () => void = () => undefined;

  constructor(cluster: MemoryCluster, connection: Connection, options: GroupOptions) {
    this.#cluster = cluster;
    this.#connection = connection;
    this.#groupId = options.groupId;
    this.#instanceId = options.instanceId;
    this.#topics = [...new Set(options.topics)].sort();
    this.#sessionTimeoutMs = options.sessionTimeoutMs ?? 6_000;
    this.#rebalanceTimeoutMs = options.rebalanceTimeoutMs ?? 15_000;
    connection.adopt(this.#stoppable);
  }

  run(work: Work, onError: (error: unknown) => void = () => undefined): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.resolve();
    if (this.#running !== undefined) return Promise.reject(groupRunsAlready(this.#groupId));
    this.#running = this.#run(work, onError).finally(() => this.#leave());
    return this.#running;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    if (this.#running === undefined) await this.#leave();
    else await this.#running.catch(() => undefined); // `run` has told its caller
  }

  async #run(work: Work, onError: (error: unknown) => void): Promise<void> {
    const stopping = this.#stopping.signal;
    let backoffMs = FIRST_BACKOFF_MS;
    while (!stopping.aborted) {
      try {
        const given = await this.#join();
        if (given === undefined) continue;
        backoffMs = FIRST_BACKOFF_MS;
        await this.#hold(given, work, onError);
      } catch (error) {
        if (stopping.aborted) return;
        if (error instanceof HeadwaterError && !error.retryable) throw error;
        report(error, onError);
        await this.#connection.clock.wait(backoffMs, stopping);
        backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
      }
    }
  }

  /** Joins, and waits for the generation to be made; undefined: the group does not know this member any more, or it stops. */
  async #join(): Promise<Pick<Assignment, 'membership' | 'partitions'> | undefined> {
    const groupId = this.#groupId;
    const request = {
      topics: this.#topics,
      owned: this.#owned,
      sessionTimeoutMs: this.#sessionTimeoutMs,
      rebalanceTimeoutMs: this.#rebalanceTimeoutMs,
      ...(this.#instanceId !== undefined && { instanceId: this.#instanceId }),
    };
    const known = this.#memberId;
    const joined = await this.#connection.request({ request: 'join', groupId }, () => {
      const id = this.#cluster.join(groupId, request, known);
      // Whoever does not hear that it is a member sends no heartbeats.
      return id === undefined ? undefined : { id, heard: this.#cluster.silent(groupId, id, this.#sessionTimeoutMs) };
    });
    if (joined === undefined) return this.#forgetMember();
    const memberId = joined.id;
    joined.heard();
    if (memberId !== known) this.#keepAlive(memberId);
    this.#memberId = memberId;
    while (!this.#stopping.signal.aborted) {
      const group = this.#cluster.group(groupId);
      const found = await this.#connection.request({ request: 'join', groupId }, () => ({
        standing: group.standing(memberId),
        given: group.given(memberId),
      }));
      if (found.standing === 'fenced') throw this.#fenced();
      if (found.standing === 'unknown') return this.#forgetMember();
      if (found.given !== undefined) {
        this.#owned = found.given.partitions;
        const { generation, partitions } = found.given;
        return {
          membership: {
            groupId,
            memberId,
            generation,
            ...(this.#instanceId !== undefined && { instanceId: this.#instanceId }),
          },
          partitions: this.#topics.flatMap((topic) => partitions.map((partition) => ({ topic, partition }))),
        };
      }
      await this.#connection.rest(this.#cluster.groupsChanged, this.#sessionTimeoutMs, this.#stopping.signal);
    }
    return undefined;
  }

  /** From the assignment to its end: resolves when the work has settled and the group may be joined again. */
  async #hold(given: Pick<Assignment, 'membership' | 'partitions'>, work: Work, onError: (error: unknown) => void) {
    const revoking = new AbortController();
    const settled = new AbortController();
    const revoke = () => revoking.abort();
    this.#stopping.signal.addEventListener('abort', revoke, { once: true });
    if (this.#stopping.signal.aborted) revoke();
    const watching = this.#watch(given.membership.memberId, revoking, settled.signal);
    await this.#persist({ ...given, signal: revoking.signal }, work, onError);
    settled.abort();
    const standing = await watching;
    this.#stopping.signal.removeEventListener('abort', revoke);
    if (standing === 'fenced') throw this.#fenced();
  }

  /** Aborts `revoking` when the partitions are to be given back, or are lost. */
  async #watch(memberId: string, revoking: AbortController, settled: AbortSignal): Promise<Standing> {
    const group = this.#cluster.group(this.#groupId);
    const call = { request: 'heartbeat', groupId: this.#groupId } as const;
    let standing: Standing = 'current';
    while (!settled.aborted) {
      // An unheard heartbeat changes nothing; the next one tells.
      standing = await this.#connection.request(call, () => group.standing(memberId)).catch(() => standing);
      if (standing !== 'current') revoking.abort();
      if (standing === 'unknown' || standing === 'fenced') {
        this.#forgetMember();
        return standing;
      }
      await this.#connection.rest(this.#cluster.groupsChanged, this.#sessionTimeoutMs / 3, settled);
    }
    return standing;
  }

  /** Runs the work until the signal; work that fails before is reported and run again. */
  async #persist(assignment: Assignment, work: Work, onError: (error: unknown) => void): Promise<void> {
    const { signal } = assignment;
    let backoffMs = FIRST_BACKOFF_MS;
    while (!signal.aborted) {
      try {
        await work(assignment);
        while (!signal.aborted) await this.#connection.clock.wait(this.#sessionTimeoutMs, signal);
      } catch (error) {
        report(error, onError);
        await this.#connection.clock.wait(backoffMs, signal);
        backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
      }
    }
  }

  /** A process that is paused or killed sends no heartbeats: its session runs out. */
  #keepAlive(memberId: string): void {
    this.#endSilence();
    let speak: () => void = () => undefined;
    const end = this.#connection.onSilence((silent) => {
      speak();
      if (silent) speak = this.#cluster.silent(this.#groupId, memberId, this.#sessionTimeoutMs);
    });
    this.#endSilence = () => {
      end();
      speak();
    };
  }

  #fenced(): HeadwaterError {
    this.#forgetMember();
    return instanceFenced(this.#groupId, this.#instanceId);
  }

  #forgetMember(): undefined {
    this.#endSilence();
    this.#memberId = undefined;
    this.#owned = [];
    return undefined;
  }

  async #leave(): Promise<void> {
    this.#connection.dismiss(this.#stoppable);
    const memberId = this.#memberId;
    // A static member keeps its place for a restart within its session.
    if (memberId !== undefined && this.#instanceId === undefined) {
      const call = { request: 'leave', groupId: this.#groupId } as const;
      await this.#connection
        .request(call, () => this.#cluster.leave(this.#groupId, memberId))
        .catch(() => this.#cluster.silent(this.#groupId, memberId, this.#sessionTimeoutMs));
    } else if (memberId !== undefined) this.#cluster.silent(this.#groupId, memberId, this.#sessionTimeoutMs);
    this.#forgetMember();
  }
}

/** A throwing observer must not cost the member its partitions. */
function report(error: unknown, onError: (error: unknown) => void): void {
  try {
    onError(error);
  } catch {
    return;
  }
}
