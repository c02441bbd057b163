import type { Membership, PartitionOffset, TopicPartition } from '@headwater/core';
import { flexible, readError, readTopics, writeTopics, type Answer, type Call } from './call.js';

/** `all`: every partition of which the group has committed something. `stable`: offsets that no open transaction can still change; the broker answers 88 until then. `committed`: as they are now. */
export function offsetFetch(
  groupId: string,
  partitions: readonly TopicPartition[] | 'all',
  which: 'stable' | 'committed',
): Call<Answer & { offsets: PartitionOffset[] }> {
  return flexible(
    9,
    'OffsetFetch',
    7,
    (body) => {
      body.compactString(groupId);
      if (partitions === 'all') body.nullArray();
      else writeTopics(body, partitions, ({ partition }) => body.int32(partition));
      body.bool(which === 'stable').tags();
    },
    (answer) => {
      answer.int32();
      let partitionError = 0;
      const offsets = readTopics(answer, (topic) => {
        const offset = { topic, partition: answer.int32(), next: answer.int64() };
        answer.int32();
        answer.compactString();
        partitionError = answer.int16() || partitionError;
        answer.tags();
        return offset;
      });
      return { error: answer.int16() || partitionError, offsets };
    },
  );
}

export interface GroupMember {
  readonly memberId: string;
  readonly metadata: Buffer;
}

export interface Joined extends Answer {
  readonly generation: number;
  readonly leader: string;
  readonly memberId: string;
  readonly skipAssignment: boolean;
  readonly members: readonly GroupMember[];
}

export interface JoinOptions {
  readonly groupId: string;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly memberId: string;
  readonly instanceId?: string;
  readonly protocol: string;
  readonly metadata: Buffer;
}

export function joinGroup(options: JoinOptions, timeoutMs: number): Call<Joined> {
  return flexible(
    11,
    'JoinGroup',
    9,
    (body) => {
      body.compactString(options.groupId).int32(options.sessionTimeoutMs).int32(options.rebalanceTimeoutMs);
      body
        .compactString(options.memberId)
        .compactString(options.instanceId ?? null)
        .compactString('consumer');
      body.compactArray([options.protocol], (name) => body.compactString(name).compactBytes(options.metadata).tags());
      body.compactString(null).tags();
    },
    (answer) => {
      const { error } = readError(answer);
      const generation = answer.int32();
      answer.compactString();
      answer.compactString();
      const leader = answer.compactString() ?? '';
      const skipAssignment = answer.bool();
      const memberId = answer.compactString() ?? '';
      const members = answer.compactArray(() => {
        const member = { memberId: answer.compactString() ?? '' };
        answer.compactString();
        const known = { ...member, metadata: answer.compactBytes() ?? Buffer.alloc(0) };
        answer.tags();
        return known;
      });
      return { error, generation, leader, skipAssignment, memberId, members };
    },
    { timeoutMs: options.rebalanceTimeoutMs + timeoutMs },
  );
}

export function syncGroup(
  { groupId, memberId, generation, instanceId }: Membership,
  protocol: string,
  assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
  timeoutMs: number,
): Call<Answer & { assignment: Buffer }> {
  return flexible(
    14,
    'SyncGroup',
    5,
    (body) => {
      body
        .compactString(groupId)
        .int32(generation)
        .compactString(memberId)
        .compactString(instanceId ?? null);
      body.compactString('consumer').compactString(protocol);
      body.compactArray(assignments, (of) => body.compactString(of.memberId).compactBytes(of.assignment).tags()).tags();
    },
    (answer) => {
      const { error } = readError(answer);
      answer.compactString();
      answer.compactString();
      return { error, assignment: answer.compactBytes() ?? Buffer.alloc(0) };
    },
    { timeoutMs },
  );
}

export function heartbeat({ groupId, memberId, generation, instanceId }: Membership, timeoutMs: number): Call<Answer> {
  return flexible(
    12,
    'Heartbeat',
    4,
    (body) =>
      body
        .compactString(groupId)
        .int32(generation)
        .compactString(memberId)
        .compactString(instanceId ?? null)
        .tags(),
    readError,
    { timeoutMs },
  );
}

export function leaveGroup(groupId: string, memberId: string): Call<Answer> {
  return flexible(
    13,
    'LeaveGroup',
    4,
    (body) => {
      body.compactString(groupId);
      body.compactArray([memberId], (id) => body.compactString(id).compactString(null).tags()).tags();
    },
    readError,
  );
}
