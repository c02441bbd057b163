import { errorCode } from '@headwater/core';
import type { ResolvedOptions } from './capture.options.js';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import { readPosition } from './position.js';
import type { Position } from './position.js';

/**
 * What a failed stream is to be taken for, `own` being the last position it committed. The log fences a writer also whose transaction was open
 * too long. While nobody else has published, that is worth another try (P7): it takes the slot first, and waits when another one has it.
 */
export async function fencedByWhom(
  error: unknown,
  own: Position,
  { log, positionTopic, name, transactionTimeoutMs }: ResolvedOptions,
): Promise<unknown> {
  if (errorCode(error) !== 'CDC_FENCED') return error;
  const last = await readPosition(log, positionTopic, name);
  if (last === undefined || last.endLsn !== own.endLsn || last.commitLsn !== own.commitLsn) return error;
  return new CaptureError(
    'CDC_PUBLISH_FAILED',
    `the log ended a transaction by itself, and no other capture has published since ${formatLsn(own.endLsn)}: it was open longer than transactionTimeoutMs (${transactionTimeoutMs}), or another capture is only starting. Capture goes on when the slot is free.`,
    { transactionTimeoutMs, endLsn: formatLsn(own.endLsn) },
    error,
  );
}
