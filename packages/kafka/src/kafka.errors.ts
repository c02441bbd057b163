import { HeadwaterError, type HeadwaterErrorOptions } from '@headwater/core';
import { errorName, remedyOf } from './error-names.js';

export type KafkaErrorCode =
  | 'KAFKA_AUTHENTICATION_FAILED'
  | 'KAFKA_CERTIFICATE_UNTRUSTED'
  | 'KAFKA_CLIENT_UNSUPPORTED'
  | 'KAFKA_REFUSED'
  | 'KAFKA_TOO_NEW'
  | 'KAFKA_TOO_OLD'
  | 'KAFKA_UNREACHABLE'
  | 'LOG_BATCH_TOO_LARGE'
  | 'LOG_CLOSED'
  | 'LOG_CODEC_MISSING'
  | 'LOG_CORRUPT'
  | 'LOG_GROUP_FOREIGN'
  | 'LOG_INSTANCE_FENCED'
  | 'LOG_NOT_COPARTITIONED'
  | 'LOG_OFFSET_OUT_OF_RANGE'
  | 'LOG_OPTIONS_INVALID'
  | 'LOG_PARTITION_MISSING'
  | 'LOG_SEND_FAILED'
  | 'LOG_TOPIC_MISMATCH'
  | 'LOG_TOPIC_MISSING'
  | 'LOG_TOPIC_RECREATED'
  | 'LOG_TRANSACTION_TIMED_OUT'
  | 'LOG_WRITER_BUSY'
  | 'LOG_WRITER_EXPIRED'
  | 'LOG_WRITER_FENCED'
  | 'LOG_MEMBER_FENCED'
  | 'LOG_MEMBER_LOST'
  | 'LOG_WRITER_NOT_READY'
  | 'LOG_TRANSACTION_ABORTED'
  | 'LOG_TRANSACTION_OVER'
  | 'RECORD_INVALID'
  | 'RECORD_TOO_LARGE';

/** What the Kafka log refuses or fails with. `facts` name the topic, partition, group or request. */
export class KafkaError extends HeadwaterError {
  declare readonly code: KafkaErrorCode;

  constructor(code: KafkaErrorCode, message: string, options: HeadwaterErrorOptions = {}) {
    super(code, message, options);
  }
}

/** The broker answered `what` with an error that is not repeated here. */
export function refused(what: string, error: number, facts: Readonly<Record<string, unknown>> = {}): KafkaError {
  const subject = Object.entries(facts)
    .map(([name, value]) => ` ${name}=${String(value)}`)
    .join('');
  const remedy = remedyOf(error) ?? (isRetriable(error) ? 'Try again.' : 'See the broker’s log.');
  return new KafkaError('KAFKA_REFUSED', `${what}${subject} was refused: ${errorName(error)} (${error}). ${remedy}`, {
    retryable: isRetriable(error) || error === TRANSACTION_ABORTABLE,
    facts: { ...facts, request: what, error, errorName: errorName(error) },
  });
}

/** Answers after which the same request may succeed. 78: a new leader does not know its high watermark yet (KIP-207); 88: offsets wait for a transaction to end. */
const RETRIABLE = new Set([3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 51, 56, 72, 74, 75, 78, 88, 100, 103]);

export function isRetriable(error: number): boolean {
  return RETRIABLE.has(error);
}

export const OFFSET_OUT_OF_RANGE = 1;
export const CORRUPT_MESSAGE = 2;
export const REQUEST_TIMED_OUT = 7;
const MESSAGE_TOO_LARGE = 10;
export const COORDINATOR_NOT_AVAILABLE = 15;
export const NOT_COORDINATOR = 16;
const RECORD_LIST_TOO_LARGE = 18;
export const NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20;
export const ILLEGAL_GENERATION = 22;
export const INCONSISTENT_GROUP_PROTOCOL = 23;
export const UNKNOWN_MEMBER_ID = 25;
export const REBALANCE_IN_PROGRESS = 27;
const INVALID_TIMESTAMP = 32;
export const UNSUPPORTED_VERSION = 35;
export const OUT_OF_ORDER_SEQUENCE_NUMBER = 45;
export const INVALID_TXN_STATE = 48;
export const INVALID_PRODUCER_ID_MAPPING = 49;
export const CONCURRENT_TRANSACTIONS = 51;
export const UNKNOWN_PRODUCER_ID = 59;
export const MEMBER_ID_REQUIRED = 79;
export const FENCED_INSTANCE_ID = 82;
const INVALID_RECORD = 87;
/** The broker asks for an abort; the transaction may be run again, the request may not. */
const TRANSACTION_ABORTABLE = 120;

/** The batch is above what the topic takes, or its segments. */
export function isTooLarge(error: number): boolean {
  return error === MESSAGE_TOO_LARGE || error === RECORD_LIST_TOO_LARGE;
}

/** A record breaks a rule of its topic: no key although it is compacted, or a timestamp too far off. */
export function isRecordInvalid(error: number): boolean {
  return error === INVALID_TIMESTAMP || error === INVALID_RECORD;
}

/** Another writer took the transactional id, or the broker ended the transaction by its time-out. */
export function isWriterFenced(error: number): boolean {
  return error === 47 || error === 90;
}

/** The member is not in the group's current generation. */
export function isMemberFenced(error: number): boolean {
  return (
    error === ILLEGAL_GENERATION ||
    error === UNKNOWN_MEMBER_ID ||
    error === REBALANCE_IN_PROGRESS ||
    error === FENCED_INSTANCE_ID ||
    error === 110 ||
    error === 113
  );
}
