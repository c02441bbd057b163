import type { Clock } from '@headwater/core';
import type { AckPolicy } from './ack-policy.js';
import { CaptureError } from './cdc.errors.js';
import type { Position } from './position.js';
import type { PublicationSeen } from './source.js';
import { publicationDropped } from './verify-slot.js';

export interface Coverage {
  readonly ack: AckPolicy;
  readonly publication: string;
  /** Whose publication it has to be. */
  readonly position: Pick<Position, 'publication' | 'endLsn'>;
  readonly look: () => Promise<PublicationSeen>;
  readonly clock: Clock;
  /** The bound has moved: something more may be acknowledged. */
  readonly onCovered: () => void;
}

const INTERVAL_MS = 1_000;
/** A server that takes longer to answer counts as lost. */
const SILENCE_MS = 10_000;

/** P18: looks once a second, as long as something waits for it. Rejects as `cover` does. */
export async function keepCovered(coverage: Coverage, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await cover(coverage, SILENCE_MS);
    await coverage.clock.wait(INTERVAL_MS, signal);
  }
}

/**
 * Lets be acknowledged what was committed when it was called, if the publication is there now: one that is was there for all of it. Asks
 * nothing when nothing waits. Rejects with CDC_PUBLICATION_MISSING when the publication is gone or another one, with CDC_STREAM_LOST when the
 * server does not answer in time.
 */
export async function cover(coverage: Coverage, withinMs: number): Promise<void> {
  const { ack, clock, look, position, publication, onCovered } = coverage;
  if (!ack.waits) return;
  const committed = ack.coverable;
  const over = new AbortController();
  const silence = clock.wait(withinMs, over.signal).then(() => undefined);
  const seen = await Promise.race([look(), silence]).finally(() => over.abort());
  if (seen === undefined) {
    throw new CaptureError(
      'CDC_STREAM_LOST',
      `the server did not tell within ${withinMs} ms whether publication "${publication}" is there. What was published since the last look is not acknowledged, and is passed by when it comes again.`,
      { withinMs, publication },
    );
  }
  if (seen.changing) return;
  const dropped = publicationDropped(publication, { publication: seen.oid }, position);
  if (dropped !== undefined) throw dropped;
  ack.covered(committed);
  onCovered();
}
