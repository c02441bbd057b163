import type { HandOver, TopicPartition } from '@headwater/core';
import { ByteReader, ByteWriter } from './bytes.js';

/** With the generation, so that no two joins of a member that knows of different ones look alike: the broker takes those for a repetition. */
const VERSION = 2;

/**
 * User data of every subscription and assignment. It tells an assignment made by a member of ours from one made by the broker or a foreign
 * leader, which would not be co-partitioned; and a broker turns no group whose members carry user data into one of the KIP-848 protocol.
 */
const MARK = Buffer.from('headwater');

/** A member's subscription as Kafka's consumers write it, so that tools can show it. */
export function encodeSubscription(topics: readonly string[], owned: readonly number[], generation: number): Buffer {
  const bytes = new ByteWriter().int16(VERSION);
  writeMark(bytes.array(topics, (topic) => bytes.string(topic)));
  writePartitions(bytes, topics, owned);
  return Buffer.from(bytes.int32(generation).done());
}

/** The partition numbers a subscription says it owned. */
export function decodeOwned(subscription: Buffer): number[] {
  const reader = new ByteReader(subscription);
  const version = reader.int16();
  reader.array(() => reader.string());
  readUserData(reader);
  if (version < 1) return [];
  return [...new Set(readPartitions(reader).map(({ partition }) => partition))];
}

export function encodeAssignment(topics: readonly string[], { given, asked, coming }: HandOver): Buffer {
  const data = new ByteWriter().raw(MARK);
  for (const numbers of [asked, coming]) data.array(numbers, (n) => data.int32(n));
  const userData = Buffer.from(data.done());
  const bytes = new ByteWriter().int16(VERSION);
  writePartitions(bytes, topics, given);
  return Buffer.from(bytes.bytes(userData).done());
}

/** Undefined: not made by a member of ours. */
export function decodeAssignment(assignment: Buffer): HandOver | undefined {
  if (assignment.length === 0) return undefined;
  const reader = new ByteReader(assignment);
  reader.int16();
  const given = [...new Set(readPartitions(reader).map(({ partition }) => partition))];
  const data = readUserData(reader);
  if (!data.subarray(0, MARK.length).equals(MARK)) return undefined;
  const numbers = new ByteReader(data.subarray(MARK.length));
  const [asked, coming] = [numbers.array(() => numbers.int32()), numbers.array(() => numbers.int32())];
  return { given, asked, coming };
}

function writeMark(bytes: ByteWriter): ByteWriter {
  return bytes.int32(MARK.length).raw(MARK);
}

function readUserData(reader: ByteReader): Buffer {
  const length = Math.max(0, reader.int32());
  const data = reader.source.subarray(reader.at, reader.at + length);
  reader.at += length;
  return data;
}

function writePartitions(bytes: ByteWriter, topics: readonly string[], partitions: readonly number[]): void {
  bytes.array(partitions.length > 0 ? topics : [], (topic) => {
    bytes.string(topic).array(partitions, (partition) => bytes.int32(partition));
  });
}

function readPartitions(reader: ByteReader): TopicPartition[] {
  const topics = reader.array(() => {
    const topic = reader.string();
    return reader.array(() => ({ topic, partition: reader.int32() }));
  });
  return topics.flat();
}
