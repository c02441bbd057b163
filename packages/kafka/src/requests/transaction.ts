import type { Membership, PartitionOffset, TopicPartition } from '@headwater/core';
import type { ByteWriter } from '../bytes.js';
import { flexible, readError, readTopics, writeTopics, type Answer, type Call } from './call.js';

export interface Producer {
  readonly transactionalId: string;
  readonly producerId: bigint;
  readonly epoch: number;
}

/** With `current` the epoch is raised only if no other writer took the id since; without it every other writer is fenced. */
export function initProducerId(
  transactionalId: string | null,
  timeoutMs: number,
  current?: { readonly producerId: bigint; readonly epoch: number },
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
  { groupId, memberId, generation, instanceId }: Membership,
  offsets: readonly PartitionOffset[],
): Call<Answer> {
  return flexible(
    28,
    'TxnOffsetCommit',
    apiVersion,
    (body) => {
      body.compactString(producer.transactionalId).compactString(groupId);
      body.int64(producer.producerId).int16(producer.epoch);
      body
        .int32(generation)
        .compactString(memberId)
        .compactString(instanceId ?? null);
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
