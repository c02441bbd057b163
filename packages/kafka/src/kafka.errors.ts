import { HeadwaterError, type HeadwaterErrorOptions } from '@headwater/core';

export type KafkaErrorCode =
  | 'KAFKA_AUTHENTICATION_FAILED'
  | 'KAFKA_CERTIFICATE_UNTRUSTED'
  | 'KAFKA_CLIENT_UNSUPPORTED'
  | 'KAFKA_REFUSED'
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
  return new KafkaError(
    'KAFKA_REFUSED',
    `${what}${subject} was refused: ${errorName(error)} (${error}). ${remedy(error)}`,
    {
      retryable: isRetriable(error),
      facts: { ...facts, request: what, error, errorName: errorName(error) },
    },
  );
}

/** Answers after which the same request may succeed. 88: offsets wait for a transaction to end. */
const RETRIABLE = new Set([3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 51, 56, 72, 74, 75, 88, 100, 103]);

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
export const OUT_OF_ORDER_SEQUENCE_NUMBER = 45;
export const INVALID_TXN_STATE = 48;
export const INVALID_PRODUCER_ID_MAPPING = 49;
export const CONCURRENT_TRANSACTIONS = 51;
export const UNKNOWN_PRODUCER_ID = 59;
export const MEMBER_ID_REQUIRED = 79;
export const FENCED_INSTANCE_ID = 82;

/** The batch is above what the topic takes, or its segments. */
export function isTooLarge(error: number): boolean {
  return error === MESSAGE_TOO_LARGE || error === RECORD_LIST_TOO_LARGE;
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

export function errorName(error: number): string {
  return NAMES[error] ?? 'UNKNOWN';
}

function remedy(error: number): string {
  if (error === 26) return 'Set sessionTimeoutMs within group.min.session.timeout.ms and group.max.session.timeout.ms.';
  if (error === 50) return 'Set transactionTimeoutMs below the broker’s transaction.max.timeout.ms.';
  if (error === 29 || error === 30 || error === 31 || error === 53) return 'Grant this client the missing ACL.';
  return isRetriable(error) ? 'Try again.' : 'See the broker’s log.';
}

const NAMES: Readonly<Record<number, string>> = {
  [-1]: 'UNKNOWN_SERVER_ERROR',
  1: 'OFFSET_OUT_OF_RANGE',
  2: 'CORRUPT_MESSAGE',
  3: 'UNKNOWN_TOPIC_OR_PARTITION',
  5: 'LEADER_NOT_AVAILABLE',
  6: 'NOT_LEADER_OR_FOLLOWER',
  7: 'REQUEST_TIMED_OUT',
  8: 'BROKER_NOT_AVAILABLE',
  9: 'REPLICA_NOT_AVAILABLE',
  10: 'MESSAGE_TOO_LARGE',
  13: 'NETWORK_EXCEPTION',
  14: 'COORDINATOR_LOAD_IN_PROGRESS',
  15: 'COORDINATOR_NOT_AVAILABLE',
  16: 'NOT_COORDINATOR',
  17: 'INVALID_TOPIC_EXCEPTION',
  18: 'RECORD_LIST_TOO_LARGE',
  19: 'NOT_ENOUGH_REPLICAS',
  20: 'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  22: 'ILLEGAL_GENERATION',
  23: 'INCONSISTENT_GROUP_PROTOCOL',
  24: 'INVALID_GROUP_ID',
  25: 'UNKNOWN_MEMBER_ID',
  26: 'INVALID_SESSION_TIMEOUT',
  27: 'REBALANCE_IN_PROGRESS',
  29: 'TOPIC_AUTHORIZATION_FAILED',
  30: 'GROUP_AUTHORIZATION_FAILED',
  31: 'CLUSTER_AUTHORIZATION_FAILED',
  35: 'UNSUPPORTED_VERSION',
  42: 'INVALID_REQUEST',
  45: 'OUT_OF_ORDER_SEQUENCE_NUMBER',
  46: 'DUPLICATE_SEQUENCE_NUMBER',
  47: 'INVALID_PRODUCER_EPOCH',
  48: 'INVALID_TXN_STATE',
  49: 'INVALID_PRODUCER_ID_MAPPING',
  50: 'INVALID_TRANSACTION_TIMEOUT',
  51: 'CONCURRENT_TRANSACTIONS',
  53: 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
  55: 'OPERATION_NOT_ATTEMPTED',
  56: 'KAFKA_STORAGE_ERROR',
  59: 'UNKNOWN_PRODUCER_ID',
  72: 'LISTENER_NOT_FOUND',
  74: 'FENCED_LEADER_EPOCH',
  75: 'UNKNOWN_LEADER_EPOCH',
  79: 'MEMBER_ID_REQUIRED',
  82: 'FENCED_INSTANCE_ID',
  87: 'INVALID_RECORD',
  88: 'UNSTABLE_OFFSET_COMMIT',
  90: 'PRODUCER_FENCED',
  100: 'UNKNOWN_TOPIC_ID',
  103: 'INCONSISTENT_TOPIC_ID',
  110: 'FENCED_MEMBER_EPOCH',
  113: 'STALE_MEMBER_EPOCH',
};
