import type { TopicPartition } from '@headwater/core';
import type { AbortedTransaction } from '../fetched.js';
import { flexible, readError, readTopics, writeTopics, type Answer, type Call } from './call.js';

export interface FetchLimits {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly partitionMaxBytes: number;
}

export interface FetchPartition extends TopicPartition {
  /** As Metadata tells it: a topic that was deleted and made again under its name is another one. */
  readonly topicId: string;
  readonly offset: number;
  /** Who leads no more refuses; without it, it answers as a follower, as late as it is. */
  readonly leaderEpoch?: number;
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
  const ids = new Map(partitions.map(({ topic, topicId }) => [topic, topicId]));
  const names = new Map(partitions.map(({ topic, topicId }) => [topicId, topic]));
  return flexible(
    1,
    'Fetch',
    13,
    (body) => {
      body.int32(-1).int32(limits.maxWaitMs).int32(1).int32(limits.maxBytes); // replica, wait, min bytes, max bytes
      body.int8(1).int32(0).int32(-1); // read committed; no fetch session
      writeTopics(
        body,
        partitions,
        ({ partition, offset, leaderEpoch = -1 }) =>
          body
            .int32(partition)
            .int32(leaderEpoch)
            .int64(offset)
            .int32(-1)
            .int64(-1)
            .int32(limits.partitionMaxBytes)
            .tags(),
        (topic) => body.raw(Buffer.from(ids.get(topic)!, 'base64url')),
      );
      body
        .compactArray([], () => undefined)
        .compactString('')
        .tags();
    },
    (answer) => {
      const { error } = readError(answer);
      answer.int32(); // session
      const readPartition = (topic: string): FetchedPartition => {
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
      };
      return { error, partitions: readTopics(answer, readPartition, () => names.get(answer.uuid()) ?? '') };
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
