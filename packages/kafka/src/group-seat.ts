import type { Assignment, Membership } from '@headwater/core';
import { assignCoPartitions } from './assignment.js';
import { decodeAssignment, decodeOwned, encodeAssignment, encodeSubscription } from './assignment-codec.js';
import {
  FENCED_INSTANCE_ID,
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

const PROTOCOL = 'headwater-co-partition';

export interface SeatOptions {
  readonly groupId: string;
  /** Sorted. */
  readonly topics: readonly string[];
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly instanceId: string | undefined;
}

export type Given = Pick<Assignment, 'membership' | 'partitions'>;

/** A member's place in its group: who it is to the coordinator and what it had, and the requests that take the place and give it back. */
export class GroupSeat {
  readonly #wire: Wire;
  readonly #options: SeatOptions;
  #memberId = '';
  #owned: readonly number[] = [];

  constructor(wire: Wire, options: SeatOptions) {
    this.#wire = wire;
    this.#options = options;
  }

  /**
   * One attempt to become a member of a generation; undefined: the group asks to join again. Rejects with LOG_INSTANCE_FENCED or
   * LOG_GROUP_FOREIGN when the place belongs to somebody else.
   */
  async take(partitionCount: number, lane: Lane, signal: AbortSignal): Promise<Given | undefined> {
    const joined = await this.#join(lane, signal);
    if (joined === undefined) return undefined;
    const { groupId, topics, instanceId } = this.#options;
    const { memberId, generation } = joined;
    const membership = { groupId, memberId, generation, ...(instanceId === undefined ? {} : { instanceId }) };
    const assignment = await this.#sync(membership, plan(joined, topics, partitionCount), lane, signal);
    if (assignment === undefined) return undefined;
    const partitions = decodeAssignment(assignment);
    if (partitions === undefined) throw foreignGroup(groupId, 'it was given an assignment that no member of ours made');
    this.#owned = [...new Set(partitions.map(({ partition }) => partition))];
    return { membership, partitions };
  }

  /** Others may have what it had; after `error` it may also be unknown by its id. */
  lost(error: number | undefined): void {
    this.#owned = [];
    if (error === UNKNOWN_MEMBER_ID) this.#memberId = '';
  }

  /** A static member keeps its place for its successor. */
  async leave(lane: Lane): Promise<void> {
    const { groupId, instanceId } = this.#options;
    const memberId = this.#memberId;
    this.#memberId = '';
    if (memberId === '' || instanceId !== undefined || this.#wire.closing.signal.aborted) return;
    // Leaving only makes the others' rebalance sooner; the session time-out does it as well.
    await this.#wire
      .coordinated(GROUP, groupId, leaveGroup(groupId, memberId), lane, { deadlineMs: 2_000 })
      .catch(() => undefined);
  }

  async #join(lane: Lane, signal: AbortSignal): Promise<Joined | undefined> {
    const { topics, ...options } = this.#options;
    const metadata = encodeSubscription(topics, this.#owned);
    const request = { ...options, memberId: this.#memberId, protocol: PROTOCOL, metadata };
    const call = joinGroup(request, this.#wire.requestTimeoutMs);
    const joined = await this.#wire.coordinated(GROUP, options.groupId, call, lane, { deadlineMs: 30_000, signal });
    if (joined.error === MEMBER_ID_REQUIRED) {
      this.#memberId = joined.memberId;
      return undefined;
    }
    if (!this.#admitted('JoinGroup', joined.error)) return undefined;
    this.#memberId = joined.memberId;
    return joined;
  }

  async #sync(
    membership: Membership,
    assignments: readonly PlannedAssignment[],
    lane: Lane,
    signal: AbortSignal,
  ): Promise<Buffer | undefined> {
    const { groupId, rebalanceTimeoutMs } = this.#options;
    const call = syncGroup(membership, PROTOCOL, assignments, rebalanceTimeoutMs + this.#wire.requestTimeoutMs);
    const synced = await this.#wire.coordinated(GROUP, groupId, call, lane, { deadlineMs: 30_000, signal });
    return this.#admitted('SyncGroup', synced.error) ? synced.assignment : undefined;
  }

  /** False: join again. */
  #admitted(request: string, error: number): boolean {
    const { groupId, instanceId } = this.#options;
    if (error === 0) return true;
    if (error === UNKNOWN_MEMBER_ID) this.lost(error);
    if (error === FENCED_INSTANCE_ID) throw instanceFenced(groupId, instanceId);
    if (error === INCONSISTENT_GROUP_PROTOCOL) throw foreignGroup(groupId, `${request} was refused (error ${error})`);
    if (isMemberFenced(error)) return false;
    throw refused(request, error, { groupId });
  }
}

interface PlannedAssignment {
  readonly memberId: string;
  readonly assignment: Buffer;
}

/** Only the leader of the group plans; its topics are those of all members. */
function plan(joined: Joined, topics: readonly string[], partitionCount: number): PlannedAssignment[] {
  if (joined.leader !== joined.memberId || joined.skipAssignment) return [];
  const members = joined.members.map(({ memberId, metadata }) => ({ memberId, owned: decodeOwned(metadata) }));
  return [...assignCoPartitions(partitionCount, members)].map(([memberId, partitions]) => ({
    memberId,
    assignment: encodeAssignment(topics, partitions),
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
