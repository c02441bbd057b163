import { HeadwaterError, errorCode } from '@headwater/core';
import type { ErrorFacts } from '@headwater/core';

/** Every code this package throws. */
export type CdcErrorCode =
  | 'CDC_ACK_AHEAD'
  | 'CDC_COLUMN_RULE_LOST'
  | 'CDC_CONTRACT_VIOLATED'
  | 'CDC_FENCED'
  | 'CDC_KEY_CHANGED'
  | 'CDC_KEY_NULL'
  | 'CDC_MESSAGE_INVALID'
  | 'CDC_MESSAGE_UNPLACED'
  | 'CDC_OTHER_CLUSTER'
  | 'CDC_POSITION_INVALID'
  | 'CDC_PROTOCOL'
  | 'CDC_PUBLICATION_MISSING'
  | 'CDC_PUBLISH_FAILED'
  | 'CDC_RECORD_REFUSED'
  | 'CDC_SERVER_NOT_READY'
  | 'CDC_SIGNAL_UNSIGNED'
  | 'CDC_SLOT_AHEAD'
  | 'CDC_SLOT_BUSY'
  | 'CDC_SLOT_LOST'
  | 'CDC_SLOT_MISSING'
  | 'CDC_SLOT_UNKNOWN'
  | 'CDC_SPOOL_FAILED'
  | 'CDC_SPOOL_UNUSABLE'
  | 'CDC_STATE_INVALID'
  | 'CDC_STREAM_LOST'
  | 'CDC_TABLE_UNPUBLISHED'
  | 'CDC_TABLES_INVALID'
  | 'CDC_TIMELINE_DIVERGED'
  | 'CDC_TRUNCATE_UNSUPPORTED'
  | 'CDC_VALUE_INVALID'
  | 'CDC_VALUE_OMITTED';

const RETRYABLE: ReadonlySet<CdcErrorCode> = new Set([
  'CDC_MESSAGE_UNPLACED',
  'CDC_PUBLISH_FAILED',
  'CDC_SLOT_BUSY',
  'CDC_SPOOL_FAILED',
  'CDC_STREAM_LOST',
]);

/** What happens to transactions that are streamed while they are open, and not to those that come whole. */
const OF_STREAMING: ReadonlySet<CdcErrorCode> = new Set(['CDC_MESSAGE_UNPLACED', 'CDC_SPOOL_FAILED']);

/** A refusal or halt of capture: a stable code, the facts as fields, and the remedy in the message. */
export class CaptureError extends HeadwaterError {
  declare readonly code: CdcErrorCode;

  constructor(code: CdcErrorCode, message: string, facts: ErrorFacts = {}, cause?: unknown) {
    super(code, message, { facts, cause, retryable: RETRYABLE.has(code) });
  }
}

/** All that is wrong with the tables, at once; each fault with its remedy. */
export function tablesInvalid(faults: readonly string[]): CaptureError {
  const list = faults.map((fault) => `\n  - ${fault}`).join('');
  return new CaptureError('CDC_TABLES_INVALID', `${faults.length} fault(s):${list}`, { faults });
}

/**
 * SQLSTATE classes that a repetition cannot mend: wrong password, no such database, no permission, no such object. Not 42710: an object
 * that exists already is a lost race.
 */
const FATAL_SQLSTATE = /^(28|3D|42(?!710))...$/;

/** Refusals of the log that a person must mend. */
const FATAL_LOG: ReadonlySet<string> = new Set([
  'KAFKA_AUTHENTICATION_FAILED',
  'KAFKA_CERTIFICATE_UNTRUSTED',
  'KAFKA_TOO_NEW',
  'KAFKA_TOO_OLD',
  'LOG_TOPIC_MISMATCH',
]);

/**
 * Whether it was the log that failed, with nobody known to have fenced this capture: a transaction of ours that ended `unknown` or `aborted`, or
 * a request that was not answered.
 */
export function isOfLog(error: unknown): boolean {
  if (!(error instanceof HeadwaterError)) return false;
  if (error.code === 'CDC_PUBLISH_FAILED') return error.facts['outcome'] !== undefined;
  return /^(KAFKA|LOG)_/.test(error.code);
}

/** Whether the same would come again on a connection that streams transactions while they are open. */
export function isOfStreaming(error: unknown): boolean {
  return error instanceof CaptureError && OF_STREAMING.has(error.code);
}

/** Whether capture halts (true) or reconnects with back-off (false) after this error. Everything foreign is worth another try. */
export function isFatal(error: unknown): boolean {
  if (error instanceof HeadwaterError)
    return FATAL_LOG.has(error.code) || (!error.retryable && error.code.startsWith('CDC_'));
  return FATAL_SQLSTATE.test(errorCode(error) ?? '');
}
