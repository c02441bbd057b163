import type { TopicPartition } from '@headwater/core';
import { errorName } from './error-names.js';
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

/** Of one record. `key`: undefined where it is not known any more. */
export function tooLarge(
  { topic, partition, key }: TopicPartition & { readonly key?: Buffer | null | undefined },
  bytes: number,
  limit?: number,
): KafkaError {
  const above = limit === undefined ? 'the topic’s max.message.bytes' : `the limit of ${limit}`;
  return new KafkaError(
    'RECORD_TOO_LARGE',
    `the record${keyed(key)} of ${bytes} bytes for ${topic}-${partition} is above ${above}. ` +
      'Make the record smaller, or store the large part elsewhere and write a reference.',
    {
      facts: {
        topic,
        partition,
        ...(key !== undefined && { key: keyText(key) }),
        bytes,
        ...(limit !== undefined && { limit }),
      },
    },
  );
}

/** Of one record that breaks a rule of its topic. `key`: undefined where the broker does not say which it is. */
export function recordInvalid(
  { topic, partition, key }: TopicPartition & { readonly key?: Buffer | null | undefined },
  error: number,
  said: string,
): KafkaError {
  const name = errorName(error);
  return new KafkaError(
    'RECORD_INVALID',
    `${topic}-${partition} refuses the record${keyed(key)} for good: ${name} (${error})${said === '' ? '' : `: ${said}`}. ` +
      'Give it a key if the topic is compacted, and a timestamp within message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic.',
    { facts: { topic, partition, ...(key !== undefined && { key: keyText(key) }), error, errorName: name, said } },
  );
}

/** Of a batch of several records, each of which may fit. */
export function batchTooLarge(
  { topic, partition, records }: TopicPartition & { readonly records: number },
  bytes: number,
  limit: number,
): KafkaError {
  return new KafkaError(
    'LOG_BATCH_TOO_LARGE',
    `${topic}-${partition} does not take a batch of ${records} records and ${bytes} bytes. ` +
      `Nothing of the batch was written. Run the same again: batches of ${topic} are cut to ${limit} bytes now.`,
    { retryable: true, facts: { topic, partition, records, bytes, limit } },
  );
}

function keyed(key: Buffer | null | undefined): string {
  return key === undefined ? '' : ` with key ${JSON.stringify(keyText(key))}`;
}

function keyText(key: Buffer | null): string | null {
  return key === null ? null : key.toString();
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
