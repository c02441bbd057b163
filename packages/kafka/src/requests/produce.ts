import type { OutRecord, RecordRun, TopicPartition } from '@headwater/core';
import { flexible, readTopics, writeTopics, type Answer, type Call } from './call.js';

export interface EncodedBatch extends TopicPartition {
  readonly bytes: Buffer;
  /** What they are a view of, when it is to be used again once the batch is in the log. */
  readonly buffer?: Buffer;
  /** What follows `bytes` in the batch: the records of a run, where they are. */
  readonly rest?: Buffer;
  readonly run?: RecordRun;
  /** How many. */
  readonly records: number;
  /** What it is made of, unless that is a run. */
  readonly from?: readonly OutRecord[];
  /** What it took before it was compressed. Absent: it is not. */
  readonly unpackedBytes?: number;
}

export function batchBytes({ bytes, rest }: EncodedBatch): number {
  return bytes.length + (rest?.length ?? 0);
}

export interface ProducedPartition extends TopicPartition, Answer {
  /** Where the batch begins in the log; meaningful without error only. */
  readonly baseOffset: number;
  /** What the broker has to say of the error, and the records it names by their place in the batch. */
  readonly message?: string | undefined;
  readonly refused?: readonly RefusedRecord[];
}

export interface RefusedRecord {
  readonly index: number;
  readonly message: string | undefined;
}

export function produce(
  apiVersion: 9 | 12,
  transactionalId: string | null,
  timeoutMs: number,
  batches: readonly EncodedBatch[],
): Call<ProducedPartition[]> {
  let capacity = 64 + (transactionalId?.length ?? 0) * 3;
  for (const batch of batches) capacity += batch.topic.length * 3 + batchBytes(batch) + 32;
  return flexible(
    0,
    'Produce',
    apiVersion,
    (body) => {
      body.compactString(transactionalId).int16(-1).int32(timeoutMs);
      writeTopics(body, batches, (batch) => {
        body
          .int32(batch.partition)
          .uvarint(batchBytes(batch) + 1)
          .raw(batch.bytes);
        if (batch.rest !== undefined) body.raw(batch.rest);
        body.tags();
      }).tags();
    },
    (answer) =>
      readTopics(answer, (topic) => {
        const partition = answer.int32();
        const error = answer.int16();
        const baseOffset = answer.int64();
        answer.at += 16; // append time, log start
        const records = answer.compactArray(() => {
          const index = answer.int32();
          const of = answer.compactString() ?? undefined;
          answer.tags();
          return { index, message: of };
        });
        const message = answer.compactString() ?? undefined;
        answer.tags();
        return { topic, partition, error, baseOffset, message, refused: records };
      }),
    { timeoutMs, capacity },
  );
}
