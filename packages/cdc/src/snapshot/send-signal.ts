import { randomUUID } from 'node:crypto';
import type { Log } from '@headwater/core';
import type { ResolvedOptions } from '../capture.options.js';
import { CaptureError } from '../cdc.errors.js';
import type { Lsn } from '../lsn.js';
import { readPositionIfAny } from '../position.js';
import { openSession } from '../postgres-session.js';
import { SIGNAL_PREFIX } from '../snapshot-window.js';
import { signalContent } from './signals.js';
import type { Signal } from './signals.js';
import { SourceSession } from './source-session.js';

/** Rows to be published again. */
export interface SnapshotRequest {
  /** As the capture names them. */
  readonly tables: readonly string[];
  /** SQL condition on the rows of all these tables; other keys get no record. Default: whole tables. */
  readonly where?: string;
  /** Default: a random one. One that is unfinished already changes nothing. */
  readonly id?: string;
}

export function snapshotSignal({ tables, where, id }: SnapshotRequest): Signal {
  return { signal: 'snapshot', id: id ?? randomUUID(), tables, where: where ?? null };
}

/**
 * Asks a capture, which may run elsewhere or start later, through the WAL. Resolves with the place of the request: it is durable when the position has passed it.
 * Rejects with CDC_SIGNAL_UNSIGNED when the capture has never streamed, so that there is no key to sign with.
 */
export async function sendSignal(
  {
    name,
    connectionString,
    publication,
    positionTopic,
    log,
  }: Pick<ResolvedOptions, 'name' | 'connectionString' | 'publication' | 'positionTopic'> & { readonly log: Log },
  signal: Signal,
): Promise<Lsn> {
  const key = (await readPositionIfAny(log, positionTopic, name))?.signalKey;
  if (key === undefined) {
    throw new CaptureError(
      'CDC_SIGNAL_UNSIGNED',
      `capture "${name}" has no key for signals: it has not streamed yet. Nothing was sent. Start it, then ask again.`,
      { name },
    );
  }
  const session = await openSession(connectionString, name);
  try {
    const source = await SourceSession.on(session, publication);
    return await source.emit(SIGNAL_PREFIX, signalContent(name, key, signal));
  } finally {
    await session.end().catch(() => {});
  }
}
