import { handOver, type HandOver, type Membership } from '@headwater/core';
import { decodeAssignment, decodeOwned, encodeAssignment, encodeSubscription } from './assignment-codec.js';
import {
  FENCED_INSTANCE_ID,
  ILLEGAL_GENERATION,
  INCONSISTENT_GROUP_PROTOCOL,
  KafkaError,
  MEMBER_ID_REQUIRED,
  UNKNOWN_MEMBER_ID,
  isMemberFenced,
  refused,
} from './kafka.errors.js';
import type { Lane } from './lane.js';
import { GROUP } from './requests/call.js';
import { joinGroup, leaveGroup, syncGroup, type Joined } from './requests/group.js';
import type { Wire } from './wire.js';

/** The generation of who holds nothing. */
const NONE = -1;
const PROTOCOL = 'headwater-cooperative';

export interface SeatOptions {
  readonly groupId: string;
  /** Sorted. */
  readonly topics: readonly string[];
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly instanceId: string | undefined;
}

/** A member's place in its group: who it is to the coordinator, and the requests that take the place and give it back. */
export class GroupSeat {
  readonly #wire: Wire;
  readonly #options: SeatOptions;
  #memberId = '';
  /** As whom it got a plan. Before, only the memory of one coordinator knows that id as the one of its instance. */
  #planned = '';
  /** The join that was answered last. */
  #joined: { readonly memberId: string; readonly generation: number; readonly over: object | undefined } = {
    memberId: '',
    generation: NONE,
    over: undefined,
  };

  constructor(wire: Wire, options: SeatOptions) {
    this.#wire = wire;
    this.#options = options;
  }

  /** Whether the coordinator may still know this member by its id. */
  get isKnown(): boolean {
    return this.#memberId !== '';
  }

  /**
   * One attempt to become a member of the next generation, which begins when all members have joined. `claims`: the partition numbers it holds,
   * `generation`: the last whose plan it got, or -1.
   * Undefined: the group asks to join again. `missed`: the group has made a generation without it. Rejects with LOG_INSTANCE_FENCED or LOG_GROUP_FOREIGN when the place belongs to somebody else.
   */
  async join(
    claims: readonly number[],
    generation: number,
    lane: Lane,
    signal: AbortSignal,
  ): Promise<Joined | 'missed' | undefined> {
    const { topics, ...options } = this.#options;
    const metadata = encodeSubscription(topics, claims, generation);
    const request = { ...options, memberId: this.#memberId, protocol: PROTOCOL, metadata };
    const call = joinGroup(request, this.#wire.requestTimeoutMs);
    const joined = await this.#wire.coordinated(GROUP, options.groupId, call, lane, { deadlineMs: 30_000, signal });
    if (joined.error === MEMBER_ID_REQUIRED) {
      this.#memberId = joined.memberId;
      return undefined;
    }
    const over = lane.answeredOver;
    if (!this.#admitted('JoinGroup', joined.error, over)) return undefined;
    this.#memberId = joined.memberId;
    // A generation without a plan lives in its coordinator's memory. Another coordinator, behind another connection, may have made one of that number.
    const reached = this.#joined.over === over ? Math.max(generation, this.#joined.generation) : generation;
    this.#joined = { memberId: joined.memberId, generation: joined.generation, over };
    return generation !== NONE && joined.generation > reached + 1 ? 'missed' : joined;
  }

  /** Who the member is in the generation that it joined last. */
  get membership(): Membership {
    const { groupId, instanceId } = this.#options;
    const { memberId, generation } = this.#joined;
    return { groupId, memberId, generation, ...(instanceId === undefined ? {} : { instanceId }) };
  }

  /**
   * What the generation that was joined gives the member, which is in the log then. Undefined: the group asks to join again. `missed`: it knows nothing
   * of this generation, which was lost with its coordinator; others may have made another one, of the same number, too. `generation`: as for `join`.
   * `count` is asked only by the leader.
   */
  async sync(
    joined: Joined,
    generation: number,
    count: () => Promise<number>,
    lane: Lane,
    signal: AbortSignal,
  ): Promise<HandOver | 'missed' | undefined> {
    const { groupId, topics, rebalanceTimeoutMs } = this.#options;
    const plan = leads(joined) ? planned(joined, topics, await count()) : [];
    const timeoutMs = rebalanceTimeoutMs + this.#wire.requestTimeoutMs;
    const call = syncGroup(this.membership, PROTOCOL, plan, timeoutMs);
    const synced = await this.#wire.coordinated(GROUP, groupId, call, lane, { deadlineMs: 30_000, signal });
    if (synced.error === ILLEGAL_GENERATION) return 'missed';
    const admitted = this.#admitted('SyncGroup', synced.error, lane.answeredOver);
    if (generation !== NONE && lane.answeredOver !== this.#joined.over) return 'missed';
    if (!admitted) return undefined;
    this.#planned = this.#memberId;
    const assignment = decodeAssignment(synced.assignment);
    if (assignment === undefined) throw foreignGroup(groupId, 'it was given an assignment that no member of ours made');
    return assignment;
  }

  /** After `error` it may be unknown by its id. */
  lost(error: number | undefined): void {
    if (error === UNKNOWN_MEMBER_ID) this.#memberId = '';
  }

  /** A static member keeps its place for its successor, unless `how` is `for-good`. */
  async leave(lane: Lane, how: 'for-now' | 'for-good' = 'for-now'): Promise<void> {
    const { groupId, instanceId } = this.#options;
    const memberId = this.#memberId;
    this.#memberId = '';
    const stays = instanceId !== undefined && how === 'for-now';
    if (memberId === '' || stays || this.#wire.closing.signal.aborted) return;
    // Leaving only makes the others' rebalance sooner; the session time-out does it as well.
    await this.#wire
      .coordinated(GROUP, groupId, leaveGroup(groupId, memberId), lane, { deadlineMs: 2_000 })
      .catch(() => undefined);
  }

  /** False: join again. `over`: the connection of the answer. */
  #admitted(request: string, error: number, over: object | undefined): boolean {
    const { groupId, instanceId } = this.#options;
    if (error === 0) return true;
    if (error === UNKNOWN_MEMBER_ID) this.lost(error);
    if (error === FENCED_INSTANCE_ID) {
      const isForgotten = this.#memberId !== '' && this.#memberId !== this.#planned && over !== this.#joined.over;
      if (!isForgotten) throw instanceFenced(groupId, instanceId);
      this.#memberId = '';
    }
    if (error === INCONSISTENT_GROUP_PROTOCOL) throw foreignGroup(groupId, `${request} was refused (error ${error})`);
    if (isMemberFenced(error)) return false;
    throw refused(request, error, { groupId });
  }
}

interface PlannedAssignment {
  readonly memberId: string;
  readonly assignment: Buffer;
}

function leads({ leader, memberId, skipAssignment }: Joined): boolean {
  return leader === memberId && !skipAssignment;
}

/** The leader's topics are those of all members. */
function planned({ members }: Joined, topics: readonly string[], count: number): PlannedAssignment[] {
  const claiming = members.map(({ memberId, metadata }) => ({ memberId, owned: decodeOwned(metadata) }));
  return [...handOver(count, claiming)].map(([memberId, part]) => ({
    memberId,
    assignment: encodeAssignment(topics, part),
  }));
}

export function instanceFenced(groupId: string, instanceId: string | undefined): KafkaError {
  return new KafkaError(
    'LOG_INSTANCE_FENCED',
    `another process joined group ${groupId} as instance ${instanceId}; this one has ended its work. Give every live process an instanceId of its own, then restart this one.`,
    { facts: { groupId, instanceId } },
  );
}

function foreignGroup(groupId: string, what: string): KafkaError {
  return new KafkaError(
    'LOG_GROUP_FOREIGN',
    `group ${groupId} is used by members of another kind (another assignor, or group.protocol=consumer): ${what}. Give each application a group id of its own.`,
    { facts: { groupId } },
  );
}
