import { decodeRun, type RecordRun } from '@headwater/core';
import { KafkaError } from './kafka.errors.js';

export function over(): KafkaError {
  return new KafkaError(
    'LOG_TRANSACTION_OVER',
    'the transaction has already been committed or aborted. Begin a new one.',
  );
}

export function abortedByOwner(): KafkaError {
  return new KafkaError(
    'LOG_TRANSACTION_ABORTED',
    'the transaction was aborted by its owner. Nothing of it will be seen.',
  );
}

export function tooLarge(topic: string, partition: number, bytes: number, limit?: number): KafkaError {
  return new KafkaError(
    'RECORD_TOO_LARGE',
    `a record or batch of ${bytes} bytes for ${topic}-${partition} is above ${limitText(limit)}. ` +
      'Make the record smaller, or store the large part elsewhere and write a reference.',
    { facts: { topic, partition, bytes, ...(limit !== undefined && { limit }) } },
  );
}

/** Names the largest record of the run. */
export function runTooLarge(run: RecordRun, limit?: number): KafkaError {
  const { topic, partition } = run;
  const sizes = decodeRun(run).map(({ key, value }) => ({
    key: key === null ? null : key.toString(),
    bytes: (key?.length ?? 0) + (value?.length ?? 0),
  }));
  const { key, bytes } = sizes.reduce((largest, size) => (size.bytes > largest.bytes ? size : largest));
  const of = run.count === 1 ? '' : ` (the largest of the ${run.count} in its batch)`;
  return new KafkaError(
    'RECORD_TOO_LARGE',
    `the record with key ${JSON.stringify(key)} of ${bytes} bytes${of} for ${topic}-${partition} is above ${limitText(limit)}. ` +
      'Make the record smaller, or store the large part elsewhere and write a reference.',
    { facts: { topic, partition, key, bytes, ...(limit !== undefined && { limit }) } },
  );
}

function limitText(limit: number | undefined): string {
  return limit === undefined ? 'the topic’s max.message.bytes' : `the limit of ${limit}`;
}

export function writerFenced(transactionalId: string, error: number, request: string): KafkaError {
  return new KafkaError(
    'LOG_WRITER_FENCED',
    `${transactionalId} was taken by another writer, or its transaction timed out at the broker (${request} answered ${error}). Call fence().`,
    { retryable: true, facts: { transactionalId, request, error } },
  );
}

export function memberFenced(groupId: string, error: number): KafkaError {
  return new KafkaError(
    'LOG_MEMBER_FENCED',
    `the offsets of group ${groupId} belong to another generation now (error ${error}). Drop the work; the group hands out partitions anew.`,
    { retryable: true, facts: { groupId, error } },
  );
}

export function answerLost(transactionalId: string, cause: unknown): KafkaError {
  return new KafkaError(
    'KAFKA_UNREACHABLE',
    `EndTxn of ${transactionalId} was sent and its answer lost. Call fence(), then read what was committed.`,
    { cause, facts: { transactionalId } },
  );
}

export function expired(transactionalId: string): KafkaError {
  return new KafkaError(
    'LOG_WRITER_EXPIRED',
    `the broker had forgotten the producer id of ${transactionalId}, which was idle for long. It has a new one; run the transaction again.`,
    { retryable: true, facts: { transactionalId } },
  );
}

export function timedOut(transactionalId: string, timeoutMs: number, cause: unknown): KafkaError {
  return new KafkaError(
    'LOG_TRANSACTION_TIMED_OUT',
    `the transaction of ${transactionalId} was not written within ${timeoutMs} ms. It is aborted; run it again.`,
    { retryable: true, cause, facts: { transactionalId, timeoutMs } },
  );
}
