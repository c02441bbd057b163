import type { Assignment, GroupOptions, LogGroup } from '@headwater/core';
import { heartbeats, type Loss } from './group-heartbeat.js';
import { GroupSeat, instanceFenced, type Given, type SeatOptions } from './group-seat.js';
import { coPartitionCount } from './group-topics.js';
import { FENCED_INSTANCE_ID, KafkaError, errorName } from './kafka.errors.js';
import type { Lane } from './lane.js';
import { aborted, wait } from './wait.js';
import type { Wire } from './wire.js';

const FIRST_BACKOFF_MS = 200;
const LAST_BACKOFF_MS = 5_000;
/** A join takes two attempts, one of a member that was forgotten three; whoever is asked more often is in a dispute and gives it time. */
const EAGER_ATTEMPTS = 3;
const LONGEST_GRACE_MS = 300_000;

type Work = (assignment: Assignment) => Promise<void>;

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

  run(work: Work, onError: (error: unknown) => void = warn): Promise<void> {
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
    const { groupId, topics } = this.#options;
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
        const count = await coPartitionCount(this.#wire, groupId, topics, stopping);
        const given = await this.#seat.take(count, this.#joinLane, stopping);
        if (given === undefined) {
          if (++attempts > EAGER_ATTEMPTS) await pause();
          continue;
        }
        attempts = 0;
        backoffMs = FIRST_BACKOFF_MS;
        overdue = (await this.#hold(given, work, onError)) === 'overdue' ? overdue + 1 : 0;
        // Joining again at once would throw out whoever works on the same slow record now: two would do that to each other for ever.
        if (overdue > 0) await wait(this.#graceMs(overdue), stopping);
      } catch (error) {
        if (stopping.aborted) return;
        if (error instanceof KafkaError && !error.retryable) throw error;
        report(error, onError);
        await pause();
      }
    }
  }

  /** How long the others get to end a record that outlasted this member's rebalance time-out `overdue` times in a row. */
  #graceMs(overdue: number): number {
    return Math.min((this.#options.rebalanceTimeoutMs / 2) * 2 ** (overdue - 1), LONGEST_GRACE_MS);
  }

  /**
   * From the assignment to its end: resolves when the work has settled and the group may be joined again. `overdue`: the group went on
   * without this member, which was alive but did not end its work in time.
   */
  async #hold(given: Given, work: Work, onError: (error: unknown) => void): Promise<'settled' | 'overdue'> {
    const { sessionTimeoutMs, groupId, instanceId } = this.#options;
    const revoking = new AbortController();
    const settled = new AbortController();
    const stop = () => revoking.abort();
    this.#stopping.signal.addEventListener('abort', stop);
    if (this.#stopping.signal.aborted) stop();
    const held = { membership: given.membership, sessionTimeoutMs, revoking, settled: settled.signal };
    const beating = heartbeats(this.#wire, this.#beatLane, held);
    await persist({ ...given, signal: revoking.signal }, work, onError);
    settled.abort();
    const loss = await beating;
    this.#stopping.signal.removeEventListener('abort', stop);
    if (loss === undefined) return 'settled';
    this.#seat.lost(loss.error);
    if (loss.error === FENCED_INSTANCE_ID) throw instanceFenced(groupId, instanceId);
    if (!this.#stopping.signal.aborted) report(memberLost(groupId, sessionTimeoutMs, loss), onError);
    return loss.error !== undefined && loss.stalledMs < sessionTimeoutMs / 2 ? 'overdue' : 'settled';
  }

  async #leave(): Promise<void> {
    this.#wire.dismiss(this.#stoppable);
    await this.#seat.leave(this.#beatLane);
    await Promise.all([this.#wire.release(this.#joinLane), this.#wire.release(this.#beatLane)]);
  }
}

/** Runs the work until the signal; work that fails before is reported and run again. */
async function persist(assignment: Assignment, work: Work, onError: (error: unknown) => void): Promise<void> {
  const { signal } = assignment;
  let backoffMs = FIRST_BACKOFF_MS;
  while (!signal.aborted) {
    try {
      await work(assignment);
      await aborted(signal);
    } catch (error) {
      report(error, onError);
      await wait(backoffMs, signal);
      backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
    }
  }
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
