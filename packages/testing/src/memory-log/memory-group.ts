import { HeadwaterError, HeldTenure, wholly } from '@headwater/core';
import type { Assignment, GroupOptions, HandOver, LogGroup, Membership, Tenure } from '@headwater/core';
import type { Connection } from './connection.js';
import type { MemoryCluster } from './memory-cluster.js';
import type { Standing } from './group-state.js';
import { generationMissed, groupRunsAlready, instanceFenced, notGivenBack } from './refusals.js';

const FIRST_BACKOFF_MS = 200;
const LAST_BACKOFF_MS = 5_000;

type Work = (tenure: Tenure) => Promise<void>;
type OnError = (error: unknown) => void;

/** What one generation gives a member. */
interface Given {
  readonly membership: Membership;
  readonly part: HandOver;
}

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

  run(work: (assignment: Assignment) => Promise<void>, onError?: OnError): Promise<void> {
    return this.hold(wholly(work), onError);
  }

  hold(work: Work, onError: OnError = () => undefined): Promise<void> {
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

  async #run(work: Work, onError: OnError): Promise<void> {
    const stopping = this.#stopping.signal;
    let backoffMs = FIRST_BACKOFF_MS;
    while (!stopping.aborted) {
      try {
        const given = await this.#join([]);
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
  async #join(owned: readonly number[]): Promise<Given | undefined> {
    const groupId = this.#groupId;
    const request = {
      topics: this.#topics,
      owned,
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
        const { generation, part } = found.given;
        return {
          membership: {
            groupId,
            memberId,
            generation,
            ...(this.#instanceId !== undefined && { instanceId: this.#instanceId }),
          },
          part,
        };
      }
      await this.#connection.rest(this.#cluster.groupsChanged, this.#sessionTimeoutMs, this.#stopping.signal);
    }
    return undefined;
  }

  /** From the first assignment to the end of the tenure: resolves when the work has settled and the group may be joined anew. */
  async #hold({ membership, part }: Given, work: Work, onError: OnError): Promise<void> {
    const settled = new AbortController();
    const tenure = new HeldTenure(
      membership,
      this.#topics,
      () => this.#connection.clock.elapsed(),
      () => this.#cluster.groupsChanged.ring(),
    );
    tenure.accept(membership.generation, part);
    const stop = () => tenure.end();
    this.#stopping.signal.addEventListener('abort', stop, { once: true });
    if (this.#stopping.signal.aborted) stop();
    const keeping = this.#keep(tenure, settled.signal, onError).catch((error: unknown) => {
      tenure.end();
      return { error };
    });
    await this.#persist(tenure, work, onError);
    settled.abort();
    const kept = await keeping;
    this.#stopping.signal.removeEventListener('abort', stop);
    if (kept !== undefined) throw kept.error;
  }

  /** Joins again when the group asks for it, or a share was released; ends the tenure when it is lost. */
  async #keep(tenure: HeldTenure, settled: AbortSignal, onError: OnError): Promise<undefined> {
    const group = this.#cluster.group(this.#groupId);
    const { memberId } = tenure.membership;
    const call = { request: 'heartbeat', groupId: this.#groupId } as const;
    let standing: Standing = 'current';
    while (!settled.aborted) {
      // An unheard heartbeat changes nothing; the next one tells.
      standing = await this.#connection.request(call, () => group.standing(memberId)).catch(() => standing);
      if (standing === 'fenced') throw this.#fenced();
      if (standing === 'unknown') {
        tenure.end();
        return this.#forgetMember();
      }
      const leftMs = tenure.leftMs(this.#rebalanceTimeoutMs);
      if (leftMs <= 0) {
        report(notGivenBack(this.#groupId, tenure.returning), onError);
        tenure.end();
        return this.#quit(memberId);
      }
      const mustJoin = standing === 'join-again' || tenure.owing || tenure.joining;
      if (mustJoin && !tenure.signal.aborted && !settled.aborted) await this.#joinAgain(tenure, settled, onError);
      else
        await this.#connection.rest(this.#cluster.groupsChanged, Math.min(this.#sessionTimeoutMs / 3, leftMs), settled);
    }
    return undefined;
  }

  async #joinAgain(tenure: HeldTenure, settled: AbortSignal, onError: OnError): Promise<void> {
    tenure.join();
    try {
      const given = await this.#join(tenure.claims);
      // In a generation it missed, others may have been given what it held.
      if (given === undefined || given.membership.generation > tenure.generation + 1) {
        if (given !== undefined && !tenure.signal.aborted) report(generationMissed(this.#groupId), onError);
        return tenure.end();
      }
      tenure.accept(given.membership.generation, given.part);
    } catch (error) {
      if (error instanceof HeadwaterError && !error.retryable) throw error;
      await this.#connection.clock.wait(FIRST_BACKOFF_MS, settled);
    }
  }

  /** Runs the work until the signal; work that fails before is reported and run again. */
  async #persist(tenure: HeldTenure, work: Work, onError: OnError): Promise<void> {
    const { signal } = tenure;
    let backoffMs = FIRST_BACKOFF_MS;
    while (!signal.aborted) {
      try {
        await work(tenure);
        tenure.rest();
        while (!signal.aborted) await this.#connection.clock.wait(this.#sessionTimeoutMs, signal);
      } catch (error) {
        tenure.rest();
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
    return undefined;
  }

  async #leave(): Promise<void> {
    this.#connection.dismiss(this.#stoppable);
    const memberId = this.#memberId;
    if (memberId === undefined) return;
    if (this.#instanceId === undefined) return this.#quit(memberId);
    // A static member keeps its place for a restart within its session.
    this.#cluster.silent(this.#groupId, memberId, this.#sessionTimeoutMs);
    this.#forgetMember();
  }

  async #quit(memberId: string): Promise<undefined> {
    const call = { request: 'leave', groupId: this.#groupId } as const;
    await this.#connection
      .request(call, () => this.#cluster.leave(this.#groupId, memberId))
      .catch(() => this.#cluster.silent(this.#groupId, memberId, this.#sessionTimeoutMs));
    return this.#forgetMember();
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
