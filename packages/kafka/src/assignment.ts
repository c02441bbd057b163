import type { TopicPartition } from '@headwater/core';
import { ByteReader, ByteWriter } from './bytes.js';

export interface CoPartitionMember {
  readonly memberId: string;
  /** Partition numbers it had in the previous generation. */
  readonly owned: readonly number[];
}

/**
 * Partition number → member, the same for all topics. Counts differ by one at most; a member keeps what it had as far as that allows. Two
 * members that claim one number: the smaller member id wins. The same input gives the same output in any order.
 */
export function assignCoPartitions(
  partitionCount: number,
  members: readonly CoPartitionMember[],
): ReadonlyMap<string, readonly number[]> {
  const ordered = [...members].sort((a, b) => (a.memberId < b.memberId ? -1 : a.memberId > b.memberId ? 1 : 0));
  const fair = Math.floor(partitionCount / Math.max(1, ordered.length));
  let larger = partitionCount - fair * ordered.length;
  const taken = new Set<number>();
  const given = new Map<string, number[]>();
  for (const { memberId, owned } of ordered) {
    const claims = [...new Set(owned)]
      .filter((n) => n >= 0 && n < partitionCount && !taken.has(n))
      .sort((a, b) => a - b);
    const quota = claims.length > fair && larger > 0 ? fair + 1 : fair;
    const kept = claims.slice(0, quota);
    if (kept.length > fair) larger--;
    for (const n of kept) taken.add(n);
    given.set(memberId, kept);
  }
  const free = Array.from({ length: partitionCount }, (_, n) => n).filter((n) => !taken.has(n));
  for (const kept of given.values()) {
    while (kept.length < fair && free.length > 0) kept.push(free.shift()!);
  }
  for (const kept of given.values()) {
    if (kept.length === fair && larger > 0 && free.length > 0) {
      kept.push(free.shift()!);
      larger--;
    }
    kept.sort((a, b) => a - b);
  }
  return given;
}

const VERSION = 1;

/** A member's subscription as Kafka's consumers write it, so that tools can show it. */
export function encodeSubscription(topics: readonly string[], owned: readonly number[]): Buffer {
  const bytes = new ByteWriter().int16(VERSION);
  bytes.array(topics, (topic) => bytes.string(topic)).int32(-1);
  bytes.array(owned.length > 0 ? topics : [], (topic) => {
    bytes.string(topic).array(owned, (partition) => bytes.int32(partition));
  });
  return Buffer.from(bytes.done());
}

/** The partition numbers a subscription says it owned. */
export function decodeOwned(subscription: Buffer): number[] {
  const reader = new ByteReader(subscription);
  const version = reader.int16();
  reader.array(() => reader.string());
  const userData = reader.int32();
  if (userData > 0) reader.at += userData;
  if (version < 1) return [];
  return [
    ...new Set(
      reader.array(() => [reader.string(), reader.array(() => reader.int32())] as const).flatMap(([, of]) => of),
    ),
  ];
}

export function encodeAssignment(topics: readonly string[], partitions: readonly number[]): Buffer {
  const bytes = new ByteWriter().int16(VERSION);
  bytes.array(partitions.length > 0 ? topics : [], (topic) => {
    bytes.string(topic).array(partitions, (partition) => bytes.int32(partition));
  });
  return Buffer.from(bytes.int32(-1).done());
}

export function decodeAssignment(assignment: Buffer): TopicPartition[] {
  if (assignment.length === 0) return [];
  const reader = new ByteReader(assignment);
  reader.int16();
  return reader
    .array(() => {
      const topic = reader.string();
      return reader.array(() => ({ topic, partition: reader.int32() }));
    })
    .flat();
}
