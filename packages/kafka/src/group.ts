import { type Assignment, type GroupOptions, type LogGroup, type Membership } from '@headwater/core';
import {
  assignCoPartitions,
  decodeAssignment,
  decodeOwned,
  encodeAssignment,
  encodeSubscription,
} from './assignment.js';
import {
  COORDINATOR_NOT_AVAILABLE,
  ILLEGAL_GENERATION,
  KafkaError,
  MEMBER_ID_REQUIRED,
  NOT_COORDINATOR,
  REBALANCE_IN_PROGRESS,
  UNKNOWN_MEMBER_ID,
  isMemberFenced,
  refused,
} from './kafka.errors.js';
import type { Lane } from './lane.js';
import { GROUP } from './requests/call.js';
import { heartbeat, joinGroup, leaveGroup, syncGroup, type Joined } from './requests/group.js';
import { aborted, wait } from './wait.js';
import type { Wire } from './wire.js';

const PROTOCOL = 'headwater-co-partition';
const TOPIC_PATIENCE_MS = 5_000;
const FIRST_BACKOFF_MS = 200;
const LAST_BACKOFF_MS = 5_000;

type Work = (assignment: Assignment) => Promise<void>;

/** Why an assignment ended. */
type Ending = 'revoked' | 'lost' | 'stopped';

export class KafkaGroup implements LogGroup {
  readonly #wire: Wire;
  readonly #groupId: string;
  readonly #topics: readonly string[];
  readonly #sessionTimeoutMs: number;
  readonly #rebalanceTimeoutMs: number;
  /** A join waits at the broker for the other members: heartbeats must not wait behind it. */
  readonly #joinLane: Lane;
  readonly #beatLane: Lane;
  readonly #stopping = new AbortController();
  readonly #stoppable = { order: 0, stop: () => this.stop() } as const;
  #memberId = '';
  #owned: readonly number[] = [];
  #running: Promise<void> | undefined;

  constructor(wire: Wire, options: GroupOptions) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#groupId = options.groupId;
    this.#topics = [...new Set(options.topics)].sort();
    this.#sessionTimeoutMs = options.sessionTimeoutMs ?? 6_000;
    this.#rebalanceTimeoutMs = options.rebalanceTimeoutMs ?? 15_000;
    this.#joinLane = wire.lane();
    this.#beatLane = wire.lane();
  }

  run(work: Work, onError: (error: unknown) => void = warn): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.resolve();
    if (this.#running !== undefined) return Promise.reject(alreadyRuns(this.#groupId));
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
    // A join waits at the broker for the others; stop does not wait for that.
    stopping.addEventListener('abort', () => this.#joinLane.cut(), { once: true });
    while (!stopping.aborted) {
      try {
        const given = await this.#join();
        if (given === undefined) continue;
        backoffMs = FIRST_BACKOFF_MS;
        await this.#hold(given.membership, given.partitions, work, onError);
      } catch (error) {
        if (stopping.aborted) return;
        if (error instanceof KafkaError && !error.retryable) throw error;
        report(error, onError);
        await wait(backoffMs, stopping);
        backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS);
      }
    }
  }

  /** One attempt to become a member of a generation; undefined: the group asks to join again. */
  async #join(): Promise<Pick<Assignment, 'membership' | 'partitions'> | undefined> {
    const count = await this.#partitionCount();
    const timeoutMs = this.#wire.requestTimeoutMs;
    const request = {
      groupId: this.#groupId,
      sessionTimeoutMs: this.#sessionTimeoutMs,
      rebalanceTimeoutMs: this.#rebalanceTimeoutMs,
      memberId: this.#memberId,
      protocol: PROTOCOL,
      metadata: encodeSubscription(this.#topics, this.#owned),
    };
    const patience = { deadlineMs: 30_000, signal: this.#stopping.signal };
    const joined = await this.#wire.coordinated(
      GROUP,
      this.#groupId,
      joinGroup(request, timeoutMs),
      this.#joinLane,
      patience,
    );
    if (joined.error === MEMBER_ID_REQUIRED) this.#memberId = joined.memberId;
    if (joined.error === UNKNOWN_MEMBER_ID || joined.error === ILLEGAL_GENERATION) this.#forgetMember();
    if (joined.error === MEMBER_ID_REQUIRED || isMemberFenced(joined.error)) return undefined;
    if (joined.error !== 0) throw refused('JoinGroup', joined.error, { groupId: this.#groupId });
    this.#memberId = joined.memberId;
    const membership = { groupId: this.#groupId, memberId: joined.memberId, generation: joined.generation };
    const plan = this.#plan(joined, count);
    const call = syncGroup(membership, PROTOCOL, plan, this.#rebalanceTimeoutMs + timeoutMs);
    const synced = await this.#wire.coordinated(GROUP, this.#groupId, call, this.#joinLane, patience);
    if (synced.error === UNKNOWN_MEMBER_ID || synced.error === ILLEGAL_GENERATION) this.#forgetMember();
    if (isMemberFenced(synced.error)) return undefined;
    if (synced.error !== 0) throw refused('SyncGroup', synced.error, { groupId: this.#groupId });
    const partitions = decodeAssignment(synced.assignment);
    this.#owned = [...new Set(partitions.map(({ partition }) => partition))];
    return { membership, partitions };
  }

  /** Only the leader of the group plans; its topics are those of all members. */
  #plan(joined: Joined, count: number): { memberId: string; assignment: Buffer }[] {
    if (joined.leader !== joined.memberId || joined.skipAssignment) return [];
    const members = joined.members.map(({ memberId, metadata }) => ({ memberId, owned: decodeOwned(metadata) }));
    return [...assignCoPartitions(count, members)].map(([memberId, partitions]) => ({
      memberId,
      assignment: encodeAssignment(this.#topics, partitions),
    }));
  }

  /** The number of partitions all topics have. */
  async #partitionCount(): Promise<number> {
    const deadline = performance.now() + TOPIC_PATIENCE_MS;
    for (;;) {
      await this.#wire.refresh(this.#topics);
      const counts = this.#topics.map((topic) => [topic, this.#wire.knownLeaders(topic)?.length ?? 0] as const);
      const missing = counts.filter(([, count]) => count === 0).map(([topic]) => topic);
      if (missing.length === 0) return coPartitioned(this.#groupId, counts);
      if (this.#stopping.signal.aborted || performance.now() > deadline) {
        throw new KafkaError(
          'LOG_TOPIC_MISSING',
          `group ${this.#groupId} reads ${missing.join(', ')}, which does not exist. Create it with admin.ensureTopics() first.`,
          { facts: { groupId: this.#groupId, missing } },
        );
      }
      await wait(100, this.#stopping.signal, this.#wire.closing.signal);
    }
  }

  /** From the assignment to its end: resolves when the work has settled and the group may be joined again. */
  async #hold(
    membership: Membership,
    partitions: Assignment['partitions'],
    work: Work,
    onError: (error: unknown) => void,
  ): Promise<void> {
    const revoking = new AbortController();
    const settled = new AbortController();
    const stop = () => revoking.abort();
    this.#stopping.signal.addEventListener('abort', stop);
    if (this.#stopping.signal.aborted) stop();
    const beating = this.#beat(membership, revoking, settled.signal);
    await persist({ membership, partitions, signal: revoking.signal }, work, onError);
    settled.abort();
    const ending = await beating;
    this.#stopping.signal.removeEventListener('abort', stop);
    if (ending === 'lost') this.#forgetMember();
  }

  /**
   * Heartbeats until the work has settled, also after the revoke: else a member that needs longer than its session to end its work would be
   * thrown out. Aborts `revoking` when the partitions are to be given back or are lost.
   */
  async #beat(membership: Membership, revoking: AbortController, settled: AbortSignal): Promise<Ending> {
    const everyMs = Math.max(50, Math.min(400, this.#sessionTimeoutMs / 5));
    let ending: Ending = 'revoked';
    let answeredAt = performance.now();
    while (!settled.aborted) {
      await wait(everyMs, settled);
      if (settled.aborted) break;
      const sentAt = performance.now();
      const leftMs = this.#sessionTimeoutMs - (sentAt - answeredAt);
      const error = leftMs <= 0 ? undefined : await this.#heartbeat(membership, leftMs, settled);
      if (error === 0 || error === REBALANCE_IN_PROGRESS) answeredAt = sentAt;
      if (error === REBALANCE_IN_PROGRESS) revoking.abort();
      // The broker has given the partitions away after this time, heard or not. The clock is monotonic and counts a stopped process.
      const silent = performance.now() - answeredAt >= this.#sessionTimeoutMs;
      if (silent || (error !== undefined && error !== REBALANCE_IN_PROGRESS && isMemberFenced(error))) {
        ending = 'lost';
        revoking.abort();
        await aborted(settled);
      }
    }
    return this.#stopping.signal.aborted ? 'stopped' : ending;
  }

  /** The answer's error code; undefined when none came in time. */
  async #heartbeat(membership: Membership, leftMs: number, settled: AbortSignal): Promise<number | undefined> {
    const over = new AbortController();
    const timeoutMs = Math.min(leftMs, this.#wire.requestTimeoutMs);
    const asking = this.#askHeartbeat(membership, timeoutMs);
    const error = await Promise.race([asking, wait(leftMs, over.signal, settled).then(() => undefined)]);
    over.abort();
    return error;
  }

  async #askHeartbeat(membership: Membership, timeoutMs: number): Promise<number | undefined> {
    try {
      const coordinator = await this.#wire.coordinator(GROUP, this.#groupId);
      const { error } = await this.#wire.send(coordinator, heartbeat(membership, timeoutMs), this.#beatLane);
      if (error === COORDINATOR_NOT_AVAILABLE || error === NOT_COORDINATOR)
        this.#wire.forgetCoordinator(GROUP, this.#groupId);
      return error;
    } catch {
      // Silence counts against the session time-out; the next beat looks for the coordinator anew.
      this.#wire.forgetCoordinator(GROUP, this.#groupId);
      return undefined;
    }
  }

  #forgetMember(): void {
    this.#memberId = '';
    this.#owned = [];
  }

  async #leave(): Promise<void> {
    this.#wire.dismiss(this.#stoppable);
    if (this.#memberId !== '' && !this.#wire.closing.signal.aborted) {
      const call = leaveGroup(this.#groupId, this.#memberId);
      // Leaving only makes the others' rebalance sooner; the session time-out does it as well.
      await this.#wire
        .coordinated(GROUP, this.#groupId, call, this.#beatLane, { deadlineMs: 2_000 })
        .catch(() => undefined);
    }
    this.#forgetMember();
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

function alreadyRuns(groupId: string): KafkaError {
  return new KafkaError(
    'LOG_OPTIONS_INVALID',
    `this member of ${groupId} already runs. Make another with log.group().`,
    {
      facts: { groupId },
    },
  );
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : String(error), { code: 'HEADWATER_GROUP' });
}

function coPartitioned(groupId: string, counts: readonly (readonly [topic: string, count: number])[]): number {
  const [first] = counts;
  if (first === undefined) {
    throw new KafkaError('LOG_OPTIONS_INVALID', `group ${groupId} has no topics. Name at least one.`, {
      facts: { groupId },
    });
  }
  if (counts.every(([, count]) => count === first[1])) return first[1];
  throw new KafkaError(
    'LOG_NOT_COPARTITIONED',
    `group ${groupId}: partition counts differ: ${counts.map(([topic, count]) => `${topic} has ${count}`).join(', ')}. ` +
      'Records of one key would lie on different members. Make the counts equal, or copy one topic into a new one with the other’s count.',
    { facts: { groupId, counts: Object.fromEntries(counts) } },
  );
}
