import type { Membership, PartitionOffset, TopicPartition } from '@headwater/core';
import { ByteReader, ByteWriter } from './bytes.js';
import type { AbortedTransaction } from './fetched.js';

/** One request at one version: how its body is written and its answer read. Error codes are answers, never exceptions. */
export interface Call<T> {
  readonly apiKey: number;
  readonly apiName: string;
  readonly apiVersion: number;
  readonly timeoutMs?: number;
  encode(): Buffer;
  decode(payload: Buffer): T;
}

export interface Answer {
  readonly error: number;
}

export interface Producer {
  readonly transactionalId: string;
  readonly producerId: bigint;
  readonly epoch: number;
}

export interface EncodedBatch extends TopicPartition {
  readonly bytes: Buffer;
}

/** Kafka's numbers for the two kinds of coordinator. */
export const GROUP = 0;
export const TRANSACTION = 1;
export type CoordinatorType = typeof GROUP | typeof TRANSACTION;

/**
 * All versions used are flexible: their request header is kafkajs's plus one tag byte, which begins the body here; their response header
 * ends with a tag section. Only ApiVersions answers with the old header, so that any client understands it.
 */
function flexible<T>(
  apiKey: number,
  apiName: string,
  apiVersion: number,
  write: (body: ByteWriter) => void,
  read: (answer: ByteReader) => T,
  extra: { readonly timeoutMs?: number; readonly capacity?: number; readonly plainHeader?: true } = {},
): Call<T> {
  return {
    apiKey,
    apiName,
    apiVersion,
    timeoutMs: extra.timeoutMs,
    encode() {
      const body = new ByteWriter(extra.capacity).tags();
      write(body);
      return body.done();
    },
    decode(payload) {
      const answer = new ByteReader(payload);
      if (!extra.plainHeader) answer.tags();
      return read(answer);
    },
  };
}

/** Items of one topic together, as every request wants them, in order of first appearance. */
function byTopic<T extends { readonly topic: string }>(items: readonly T[]): [topic: string, items: T[]][] {
  const topics = new Map<string, T[]>();
  for (const item of items) {
    const known = topics.get(item.topic);
    if (known === undefined) topics.set(item.topic, [item]);
    else known.push(item);
  }
  return [...topics];
}

function writeTopics<T extends { readonly topic: string }>(
  body: ByteWriter,
  items: readonly T[],
  write: (item: T) => void,
): ByteWriter {
  return body.compactArray(byTopic(items), ([topic, of]) => {
    body.compactString(topic).compactArray(of, write).tags();
  });
}

function readTopics<T>(answer: ByteReader, read: (topic: string) => T): T[] {
  const topics = answer.compactArray(() => {
    const topic = answer.compactString() ?? '';
    const items = answer.compactArray(() => read(topic));
    answer.tags();
    return items;
  });
  return topics.flat();
}

const readError = (answer: ByteReader): Answer => {
  answer.int32(); // throttle time
  return { error: answer.int16() };
};

export interface ApiVersions extends Answer {
  readonly versions: ReadonlyMap<number, { readonly minVersion: number; readonly maxVersion: number }>;
  readonly features: ReadonlyMap<string, number>;
}

export function apiVersions(): Call<ApiVersions> {
  return flexible(
    18,
    'ApiVersions',
    3,
    (body) => body.compactString('headwater').compactString('0.1.0').tags(),
    (answer) => {
      const error = answer.int16();
      const versions = new Map<number, { minVersion: number; maxVersion: number }>();
      answer.compactArray(() => {
        versions.set(answer.int16(), { minVersion: answer.int16(), maxVersion: answer.int16() });
        answer.tags();
      });
      answer.int32();
      const features = new Map<string, number>();
      answer.tags((tag) => {
        if (tag !== 2) return; // 2: finalized features
        answer.compactArray(() => {
          features.set(answer.compactString() ?? '', answer.int16());
          answer.int16();
          answer.tags();
        });
      });
      return { error, versions, features };
    },
    { plainHeader: true },
  );
}

export interface ClusterMetadata {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  /** `leaders[partition]`, -1 while there is none. */
  readonly topics: readonly { readonly topic: string; readonly error: number; readonly leaders: readonly number[] }[];
}

export function metadata(topics: readonly string[]): Call<ClusterMetadata> {
  const noId = Buffer.alloc(16);
  return flexible(
    3,
    'Metadata',
    12,
    (body) => {
      body.compactArray(topics, (topic) => body.raw(noId).compactString(topic).tags());
      body.bool(false).bool(false).tags(); // create nothing, list no operations
    },
    (answer) => {
      answer.int32();
      const brokers = answer.compactArray(() => {
        const broker = { nodeId: answer.int32(), host: answer.compactString() ?? '', port: answer.int32() };
        answer.compactString();
        answer.tags();
        return broker;
      });
      answer.compactString();
      answer.int32();
      return { brokers, topics: answer.compactArray(() => readTopicMetadata(answer)) };
    },
  );
}

function readTopicMetadata(answer: ByteReader): ClusterMetadata['topics'][number] {
  const error = answer.int16();
  const topic = answer.compactString() ?? '';
  answer.at += 16; // topic id
  answer.bool();
  const leaders: number[] = [];
  answer.compactArray(() => {
    answer.int16();
    const partition = answer.int32();
    leaders[partition] = answer.int32();
    answer.int32(); // leader epoch
    for (let lists = 3; lists > 0; lists--) answer.compactArray(() => answer.int32());
    answer.tags();
  });
  answer.int32();
  answer.tags();
  return { topic, error, leaders };
}

export function findCoordinator(type: CoordinatorType, key: string): Call<Answer & { nodeId: number }> {
  return flexible(
    10,
    'FindCoordinator',
    3,
    (body) => body.compactString(key).int8(type).tags(),
    (answer) => {
      const { error } = readError(answer);
      answer.compactString();
      return { error, nodeId: answer.int32() };
    },
  );
}

/** With `current` the epoch is raised only if no other writer took the id since; without it every other writer is fenced. */
export function initProducerId(
  transactionalId: string,
  timeoutMs: number,
  current?: Producer,
): Call<Answer & { producerId: bigint; epoch: number }> {
  return flexible(
    22,
    'InitProducerId',
    4,
    (body) =>
      body
        .compactString(transactionalId)
        .int32(timeoutMs)
        .int64(current?.producerId ?? -1n)
        .int16(current?.epoch ?? -1)
        .tags(),
    (answer) => ({ ...readError(answer), producerId: answer.bigint64(), epoch: answer.int16() }),
  );
}

const writeProducer = (body: ByteWriter, producer: Producer): ByteWriter =>
  body.compactString(producer.transactionalId).int64(producer.producerId).int16(producer.epoch);

export function addPartitionsToTxn(producer: Producer, partitions: readonly TopicPartition[]): Call<Answer> {
  return flexible(
    24,
    'AddPartitionsToTxn',
    3,
    (body) => {
      writeTopics(writeProducer(body, producer), partitions, ({ partition }) => body.int32(partition)).tags();
    },
    (answer) => {
      answer.int32();
      const errors = readTopics(answer, () => {
        answer.int32();
        const error = answer.int16();
        answer.tags();
        return error;
      });
      // 55 OPERATION_NOT_ATTEMPTED only says that another partition failed.
      return { error: errors.find((error) => error !== 0 && error !== 55) ?? errors.find((error) => error !== 0) ?? 0 };
    },
  );
}

export function addOffsetsToTxn(producer: Producer, groupId: string): Call<Answer> {
  return flexible(
    25,
    'AddOffsetsToTxn',
    3,
    (body) => writeProducer(body, producer).compactString(groupId).tags(),
    readError,
  );
}

export function txnOffsetCommit(
  apiVersion: 3 | 5,
  producer: Producer,
  { groupId, memberId, generation }: Membership,
  offsets: readonly PartitionOffset[],
): Call<Answer> {
  return flexible(
    28,
    'TxnOffsetCommit',
    apiVersion,
    (body) => {
      body.compactString(producer.transactionalId).compactString(groupId);
      body.int64(producer.producerId).int16(producer.epoch);
      body.int32(generation).compactString(memberId).compactString(null);
      writeTopics(body, offsets, ({ partition, next }) =>
        body.int32(partition).int64(next).int32(-1).compactString('').tags(),
      ).tags();
    },
    (answer) => {
      answer.int32();
      const errors = readTopics(answer, () => {
        answer.int32();
        const error = answer.int16();
        answer.tags();
        return error;
      });
      return { error: errors.find((error) => error !== 0) ?? 0 };
    },
  );
}

/** From version 5 on the answer holds the producer id and epoch of the next transaction. */
export function endTxn(
  apiVersion: 3 | 5,
  producer: Producer,
  end: 'commit' | 'abort',
): Call<Answer & { next?: { producerId: bigint; epoch: number } }> {
  return flexible(
    26,
    'EndTxn',
    apiVersion,
    (body) =>
      writeProducer(body, producer)
        .bool(end === 'commit')
        .tags(),
    (answer) => {
      const { error } = readError(answer);
      if (apiVersion < 5 || error !== 0) return { error };
      return { error, next: { producerId: answer.bigint64(), epoch: answer.int16() } };
    },
  );
}

export interface ProducedPartition extends TopicPartition, Answer {}

export function produce(
  apiVersion: 9 | 12,
  transactionalId: string,
  timeoutMs: number,
  batches: readonly EncodedBatch[],
): Call<ProducedPartition[]> {
  let capacity = 64 + transactionalId.length * 3;
  for (const { topic, bytes } of batches) capacity += topic.length * 3 + bytes.length + 32;
  return flexible(
    0,
    'Produce',
    apiVersion,
    (body) => {
      body.compactString(transactionalId).int16(-1).int32(timeoutMs);
      writeTopics(body, batches, ({ partition, bytes }) => body.int32(partition).compactBytes(bytes).tags()).tags();
    },
    (answer) =>
      readTopics(answer, (topic) => {
        const partition = answer.int32();
        const error = answer.int16();
        answer.at += 24; // base offset, append time, log start
        answer.compactArray(() => {
          answer.int32();
          answer.compactString();
          answer.tags();
        });
        answer.compactString();
        answer.tags();
        return { topic, partition, error };
      }),
    { timeoutMs, capacity },
  );
}

export interface FetchLimits {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly partitionMaxBytes: number;
}

export interface FetchPartition extends TopicPartition {
  readonly offset: number;
}

export interface FetchedPartition extends TopicPartition, Answer {
  readonly highWatermark: number;
  readonly lastStableOffset: number;
  readonly aborted: readonly AbortedTransaction[];
  readonly bytes: Buffer;
}

export function fetch(
  partitions: readonly FetchPartition[],
  limits: FetchLimits,
  timeoutMs: number,
): Call<Answer & { partitions: FetchedPartition[] }> {
  const noBytes = Buffer.alloc(0);
  return flexible(
    1,
    'Fetch',
    12,
    (body) => {
      body.int32(-1).int32(limits.maxWaitMs).int32(1).int32(limits.maxBytes); // replica, wait, min bytes, max bytes
      body.int8(1).int32(0).int32(-1); // read committed; no fetch session
      writeTopics(body, partitions, ({ partition, offset }) =>
        body.int32(partition).int32(-1).int64(offset).int32(-1).int64(-1).int32(limits.partitionMaxBytes).tags(),
      );
      body
        .compactArray([], () => undefined)
        .compactString('')
        .tags();
    },
    (answer) => {
      const { error } = readError(answer);
      answer.int32(); // session
      const fetched = readTopics(answer, (topic) => {
        const partition = answer.int32();
        const partitionError = answer.int16();
        const highWatermark = answer.int64();
        const lastStableOffset = answer.int64();
        answer.int64(); // log start
        const aborted = answer.compactArray(() => {
          const transaction = { producerId: answer.bigint64(), firstOffset: answer.int64() };
          answer.tags();
          return transaction;
        });
        answer.int32(); // preferred replica
        const bytes = answer.compactBytes() ?? noBytes;
        answer.tags();
        return { topic, partition, error: partitionError, highWatermark, lastStableOffset, aborted, bytes };
      });
      return { error, partitions: fetched };
    },
    { timeoutMs: limits.maxWaitMs + timeoutMs },
  );
}

export const EARLIEST = -2;
export const LATEST = -1;

/** `committed`: LATEST is the last stable offset; `all`: it is the high watermark. */
export function listOffsets(
  partitions: readonly TopicPartition[],
  timestamp: number,
  isolation: 'committed' | 'all',
): Call<(TopicPartition & Answer & { offset: number })[]> {
  return flexible(
    2,
    'ListOffsets',
    6,
    (body) => {
      body.int32(-1).int8(isolation === 'committed' ? 1 : 0);
      writeTopics(body, partitions, ({ partition }) => body.int32(partition).int32(-1).int64(timestamp).tags()).tags();
    },
    (answer) => {
      answer.int32();
      return readTopics(answer, (topic) => {
        const partition = answer.int32();
        const error = answer.int16();
        answer.int64();
        const offset = answer.int64();
        answer.int32();
        answer.tags();
        return { topic, partition, error, offset };
      });
    },
  );
}

/** Offsets that no open transaction can still change: the broker answers 88 until then. */
export function offsetFetch(
  groupId: string,
  partitions: readonly TopicPartition[],
): Call<Answer & { offsets: PartitionOffset[] }> {
  return flexible(
    9,
    'OffsetFetch',
    7,
    (body) => {
      writeTopics(body.compactString(groupId), partitions, ({ partition }) => body.int32(partition))
        .bool(true)
        .tags();
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
      body.compactString(options.memberId).compactString(null).compactString('consumer');
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
  { groupId, memberId, generation }: Membership,
  protocol: string,
  assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
  timeoutMs: number,
): Call<Answer & { assignment: Buffer }> {
  return flexible(
    14,
    'SyncGroup',
    5,
    (body) => {
      body.compactString(groupId).int32(generation).compactString(memberId).compactString(null);
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

export function heartbeat({ groupId, memberId, generation }: Membership, timeoutMs: number): Call<Answer> {
  return flexible(
    12,
    'Heartbeat',
    4,
    (body) => body.compactString(groupId).int32(generation).compactString(memberId).compactString(null).tags(),
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
