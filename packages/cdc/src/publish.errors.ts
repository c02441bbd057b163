import { decodeRun, errorCode, errorMessage, headerText, HeadwaterError } from '@headwater/core';
import type { Outcome, RecordRun } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';

/** P7: fenced is the end; anything else is learned from the position after a new fence. `runs`: what was written. */
export function notCommitted(
  outcome: Outcome,
  transactionalId: string,
  runs: readonly RecordRun[] = [],
  limitOf: LimitOf = () => undefined,
): CaptureError {
  const cause = outcome.outcome === 'committed' ? undefined : outcome.cause;
  if (outcome.outcome === 'aborted' && outcome.fenced === 'writer') {
    return new CaptureError(
      'CDC_FENCED',
      `another capture took over transactional id "${transactionalId}". Nothing of the last batch was published or acknowledged here. Run one capture per name.`,
      { transactionalId },
      cause,
    );
  }
  return failed(cause, runs, limitOf, outcome.outcome);
}

/** What the log refuses of a record for good: the same batch would be refused for ever. */
const REFUSED = new Set(['RECORD_TOO_LARGE', 'RECORD_INVALID', 'LOG_TOPIC_MISSING', 'LOG_PARTITION_MISSING']);

/** The largest batch a topic takes, as far as it is known. */
type LimitOf = (topic: string) => number | undefined;

export function failed(
  cause: unknown,
  runs: readonly RecordRun[],
  limitOf: LimitOf,
  outcome = 'aborted',
): CaptureError {
  if (REFUSED.has(errorCode(cause) ?? '')) {
    const table = tableOf(cause, runs);
    const found = cause instanceof HeadwaterError ? cause.facts : {};
    const told = found['limit'];
    const limit = typeof told === 'number' ? told : limitOf(String(found['topic']));
    const of = table === undefined ? '' : ` of table ${table}`;
    const limited = limit === undefined ? '' : ` (limit ${limit} bytes)`;
    const message = `the log refuses a record${of}${limited}: ${errorMessage(cause)} Nothing of its transaction was published or acknowledged. Mend the topic, then start capture again.`;
    const facts = { ...found, outcome, ...(limit !== undefined && { limit }), ...(table !== undefined && { table }) };
    return new CaptureError('CDC_RECORD_REFUSED', message, facts, cause);
  }
  const message = `the log transaction ended ${outcome}: ${errorMessage(cause)}. Capture fences, reads its position and goes on.`;
  return new CaptureError('CDC_PUBLISH_FAILED', message, { outcome }, cause);
}

export function topicMissing(topic: string): CaptureError {
  const message = `topic ${topic} does not exist. Nothing of the transaction at hand was published or acknowledged. Make the topic, then start capture again.`;
  return new CaptureError('CDC_RECORD_REFUSED', message, { topic });
}

/** The table whose record the log named by its key. */
function tableOf(cause: unknown, runs: readonly RecordRun[]): string | undefined {
  if (!(cause instanceof HeadwaterError)) return undefined;
  const { topic, partition, key } = cause.facts;
  for (const run of runs) {
    if (run.topic !== topic || run.partition !== partition) continue;
    const found = decodeRun(run).find((record) => record.key?.toString() === key);
    if (found !== undefined) return headerText(found.headers ?? [], 'hw_table');
  }
  return undefined;
}
