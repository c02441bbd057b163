import { HeldTenure, wholly } from '@headwater/core';
import type { Assignment, GroupOptions, HandOver, LogGroup, Tenure } from '@headwater/core';
import { heartbeats, type Loss } from './group-heartbeat.js';
import { GroupSeat, instanceFenced, type SeatOptions } from './group-seat.js';
import { coPartitionCount } from './group-topics.js';
import { errorName } from './error-names.js';
import { FENCED_INSTANCE_ID, KafkaError } from './kafka.errors.js';
import type { Lane } from './lane.js';
import { aborted, wait } from './wait.js';
import type { Wire } from './wire.js';

const FIRST_BACKOFF_MS = 200;
const LAST_BACKOFF_MS = 5_000;
/** A join takes two attempts, one of a member that was forgotten three; whoever is asked more often is in a dispute and gives it time. */
const EAGER_ATTEMPTS = 3;
const LONGEST_GRACE_MS = 300_000;
const A_DAY_MS = 86_400_000;

type Work = (tenure: Tenure) => Promise<void>;

export class KafkaGroup implements LogGroup {
  readonly #wire: Wire;
  readonly #options: SeatOptions;
  readonly #seat: GroupSeat;
  /** A join waits at the broker for the other members: heartbeats must not wait behind it. */
  readonly #joinLane: Lane;
  readonly #beatLane: Lane;
  readonly #stopping = new AbortController();
  readonly #stoppable = { order: 0, stop: () => this.stop() } as const;
  #running: Promise<void> | undefined;

  constructor(wire: Wire, options: GroupOptions) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#options = {
      groupId: options.groupId,
      topics: [...new Set(options.topics)].sort(),
      sessionTimeoutMs: options.sessionTimeoutMs ?? 6_000,
      rebalanceTimeoutMs: options.rebalanceTimeoutMs ?? 15_000,
      instanceId: options.instanceId,
    };
    this.#seat = new GroupSeat(wire, this.#options);
    this.#joinLane = wire.lane();
    this.#beatLane = wire.lane();
  }

  run(work: (assignment: Assignment) => Promise<void>, onError?: (error: unknown) => void): Promise<void> {
    return this.hold(wholly(work), onError);
  }

  hold(work: Work, onError: (error: unknown) => void = warn): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.resolve();
    if (this.#running !== undefined) return Promise.reject(alreadyRuns(this.#options.groupId));
    const running = this.#run(work, onError).finally(() => this.#leave());
    this.#running = running;
    return running;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    if (this.#running === undefined) await this.#leave();
    else await this.#running.catch(() => undefined); // `run` has told its caller
  }

  async #run(work: Work, onError: (error: unknown) => void): Promise<void> {
    const stopping = this.#stopping.signal;
    let backoffMs = FIRST_BACKOFF_MS;
    let attempts = 0;
    let overdue = 0;
    const pause = async () => {
      await wait(backoffMs, stopping);
      backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
    };
    // A join waits at the broker for the others; stop does not wait for that.
    stopping.addEventListener('abort', () => this.#joinLane.cut(), { once: true });
    while (!stopping.aborted) {
      try {
        await this.#count();
        const given = await this.#join([], -1, stopping);
        if (given === undefined || given === 'missed') {
          if (++attempts > EAGER_ATTEMPTS) await pause();
          continue;
        }
        attempts = 0;
        backoffMs = FIRST_BACKOFF_MS;
        overdue = (await this.#hold(given, work, onError)) === 'overdue' ? overdue + 1 : 0;
        // Who is slower each time gets more time each time.
        if (overdue > 0) await wait(this.#graceMs(overdue), stopping);
      } catch (error) {
        if (stopping.aborted) return;
        if (!isPassing(error)) throw error;
        report(error, onError);
        await pause();
      }
    }
  }

  #count(): Promise<number> {
    const { groupId, topics } = this.#options;
    return coPartitionCount(this.#wire, groupId, topics, this.#stopping.signal);
  }

  async #join(
    claims: readonly number[],
    generation: number,
    signal: AbortSignal,
  ): Promise<HandOver | 'missed' | undefined> {
    const joined = await this.#seat.join(claims, generation, this.#joinLane, signal);
    if (joined === undefined || joined === 'missed') return joined;
    return this.#seat.sync(joined, generation, () => this.#count(), this.#joinLane, signal);
  }

  /** How long a member stays away that `overdue` times in a row did not give back in time: whoever got its partitions may need as long. */
  #graceMs(overdue: number): number {
    return Math.min((this.#options.rebalanceTimeoutMs / 2) * 2 ** (overdue - 1), LONGEST_GRACE_MS);
  }

  /**
   * From the first assignment to the end of the tenure: resolves when the work has settled and the group may be joined anew. `overdue`: it
   * left because it was asked for something and did not give it back in time.
   */
  async #hold(given: HandOver, work: Work, onError: (error: unknown) => void): Promise<'settled' | 'overdue'> {
    const { sessionTimeoutMs, groupId, instanceId, topics } = this.#options;
    const stopping = this.#stopping.signal;
    const settled = new AbortController();
    const rejoining = new Rejoining();
    const { membership } = this.#seat;
    const tenure = new HeldTenure(
      membership,
      topics,
      () => performance.now(),
      () => rejoining.wake(),
    );
    tenure.accept(membership.generation, given);
    const stop = () => tenure.end();
    stopping.addEventListener('abort', stop);
    if (stopping.aborted) stop();
    // A join that waits at the broker, or at nobody, does not hold up the next tenure.
    tenure.signal.addEventListener('abort', () => this.#joinLane.cut(), { once: true });
    const onRebalance = () => rejoining.ask();
    const held = { tenure, seat: this.#seat, sessionTimeoutMs, onRebalance, settled: settled.signal };
    const beating = heartbeats(this.#wire, this.#beatLane, held);
    const keeping = this.#keep(tenure, rejoining, onError).catch((error: unknown) => ({ error }));
    await persist(tenure, work, onError);
    settled.abort();
    const [loss, kept] = await Promise.all([beating, keeping]);
    stopping.removeEventListener('abort', stop);
    if (stopping.aborted) return 'settled';
    if (typeof kept === 'object' && (loss === undefined || !isPassing(kept.error))) throw kept.error;
    if (kept === 'overdue') return 'overdue';
    this.#seat.lost(loss?.error);
    if (loss?.error === FENCED_INSTANCE_ID) throw instanceFenced(groupId, instanceId);
    if (kept === 'missed') report(generationMissed(groupId), onError);
    else if (loss !== undefined) report(memberLost(groupId, sessionTimeoutMs, loss), onError);
    return 'settled';
  }

  /**
   * Joins again whenever the group asks for it, or a share was released that can be given on, until the tenure ends. The work goes on
   * meanwhile. Rejects, with the tenure ended, when the group refuses.
   */
  async #keep(
    tenure: HeldTenure,
    rejoining: Rejoining,
    onError: (error: unknown) => void,
  ): Promise<'over' | 'overdue' | 'missed'> {
    const { rebalanceTimeoutMs, groupId } = this.#options;
    try {
      while (!tenure.signal.aborted) {
        const leftMs = tenure.leftMs(rebalanceTimeoutMs);
        if (leftMs <= 0) {
          report(notGivenBack(groupId, tenure.returning, rebalanceTimeoutMs), onError);
          tenure.end();
          // At once: the others are waiting, and it may take long until the work settles.
          await this.#seat.leave(this.#beatLane, 'for-good');
          return 'overdue';
        }
        if (rejoining.isAsked || tenure.owing) {
          if ((await this.#rejoin(tenure, rejoining)) === 'in') continue;
          tenure.end();
          // What it told to hold in the generation that was made meanwhile is nobody's.
          await this.#seat.leave(this.#beatLane, 'for-good');
          return 'missed';
        } else await rejoining.next(Math.min(leftMs, A_DAY_MS), tenure.signal);
      }
      return 'over';
    } finally {
      tenure.end();
    }
  }

  /** `missed`: the group has made a generation without it, and may have given others what it held. */
  async #rejoin(tenure: HeldTenure, rejoining: Rejoining): Promise<'in' | 'missed'> {
    rejoining.begin();
    tenure.join();
    const given = await this.#join(tenure.claims, tenure.generation, tenure.signal);
    if (!this.#seat.isKnown || given === 'missed') return 'missed';
    if (given === undefined) rejoining.ask();
    else tenure.accept(this.#seat.membership.generation, given);
    return 'in';
  }

  async #leave(): Promise<void> {
    this.#wire.dismiss(this.#stoppable);
    await this.#seat.leave(this.#beatLane);
    await Promise.all([this.#wire.release(this.#joinLane), this.#wire.release(this.#beatLane)]);
  }
}

/** Whether the group has asked for a join since the last one began. */
class Rejoining {
  #asked = false;
  #wake: () => void = () => undefined;

  get isAsked(): boolean {
    return this.#asked;
  }

  ask(): void {
    this.#asked = true;
    this.wake();
  }

  begin(): void {
    this.#asked = false;
  }

  wake(): void {
    this.#wake();
  }

  /** Resolves when something may be to do, after `ms` at latest. */
  async next(ms: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await wait(ms, woken.signal, signal);
    this.#wake = () => undefined;
  }
}

/** Runs the work until the signal; work that fails before is reported and run again. */
async function persist(tenure: HeldTenure, work: Work, onError: (error: unknown) => void): Promise<void> {
  const { signal } = tenure;
  let backoffMs = FIRST_BACKOFF_MS;
  while (!signal.aborted) {
    try {
      await work(tenure);
      tenure.rest();
      await aborted(signal);
    } catch (error) {
      tenure.rest();
      report(error, onError);
      await wait(backoffMs, signal);
      backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
    }
  }
}

/** Joining again may help. */
function isPassing(error: unknown): boolean {
  return !(error instanceof KafkaError) || error.retryable;
}

/** A throwing observer must not cost the member its partitions. */
function report(error: unknown, onError: (error: unknown) => void): void {
  try {
    onError(error);
  } catch (failure) {
    warn(failure);
  }
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : String(error), { code: 'HEADWATER_GROUP' });
}

function alreadyRuns(groupId: string): KafkaError {
  return new KafkaError(
    'LOG_OPTIONS_INVALID',
    `this member of ${groupId} already runs. Make another with log.group().`,
    { facts: { groupId } },
  );
}

function memberLost(groupId: string, sessionTimeoutMs: number, loss: Loss): KafkaError {
  const [silentMs, stalledMs] = [Math.round(loss.silentMs), Math.round(loss.stalledMs)];
  const cause =
    loss.error === undefined
      ? `no heartbeat was answered for ${silentMs} ms`
      : `the coordinator answered ${errorName(loss.error)} (${loss.error})`;
  const stall =
    stalledMs < sessionTimeoutMs / 2
      ? ''
      : ` This process stood still for ${stalledMs} ms: its event loop was blocked, or it was stopped. Move long computations off the event loop.`;
  return new KafkaError(
    'LOG_MEMBER_LOST',
    `the group ${groupId} went on without this member: ${cause}, the session is ${sessionTimeoutMs} ms.${stall} It joins again.`,
    { retryable: true, facts: { groupId, sessionTimeoutMs, silentMs, stalledMs, error: loss.error } },
  );
}

function notGivenBack(groupId: string, partitions: readonly number[], withinMs: number): KafkaError {
  return new KafkaError(
    'LOG_MEMBER_LOST',
    `the group ${groupId} goes on without this member: it was asked for partition ${partitions.join(', ')} and did not give it back within ${withinMs} ms. ` +
      'A record in work takes longer than that: make its handler shorter, or raise rebalanceTimeoutMs. It joins again when its work has ended.',
    { retryable: true, facts: { groupId, partitions, withinMs } },
  );
}

function generationMissed(groupId: string): KafkaError {
  return new KafkaError(
    'LOG_MEMBER_LOST',
    `the group ${groupId} made a generation without this member while it joined again: its answers were late or lost. It joins anew.`,
    { retryable: true, facts: { groupId } },
  );
}
