import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { Position } from './position.js';

export interface SlotFacts {
  readonly confirmedFlushLsn: Lsn;
  readonly walStatus: string;
  readonly invalidationReason: string | null;
  readonly activePid: number | null;
  readonly plugin: string;
}

/** What the server says, read in one go. */
export interface ServerFacts {
  readonly systemId: string;
  readonly timeline: number;
  /** Where this timeline left that of the position, when it is another one. */
  readonly timelineSwitch: Lsn | undefined;
  readonly maxSlotWalKeepSize: string;
  readonly slot: SlotFacts | undefined;
  /** OID of the publication, when it exists. */
  readonly publication: number | undefined;
  /** Wanted tables that the publication, when it exists, does not carry. */
  readonly unpublished?: readonly string[] | undefined;
}

export interface Wanted {
  readonly slot: string;
  readonly publication: string;
  readonly snapshot: 'initial' | 'never' | 'only' | 'when-needed';
  /** Key columns by table. */
  readonly keys: Readonly<Record<string, readonly string[]>>;
}

/**
 * `create`: a slot without a snapshot. `adopt`: an existing slot, from where it stands. `busy`: the slot is held by `pid`.
 * `snapshot` carries the refusal it replaces, if any.
 */
export type ResumePlan =
  | { readonly kind: 'resume'; readonly position: Position; readonly added: readonly string[] }
  | { readonly kind: 'snapshot'; readonly because: CaptureError | undefined }
  | { readonly kind: 'create' | 'adopt' | 'finish' }
  | { readonly kind: 'finished' }
  | { readonly kind: 'refused'; readonly error: CaptureError }
  | { readonly kind: 'busy'; readonly pid: number };

/**
 * P2: decides how capture may go on, before anything is published or acknowledged. Pure. With `when-needed` a refusal becomes
 * a new slot and snapshot. `holdsSlot`: the active pid is our own connection.
 */
export function planResume(
  wanted: Wanted,
  server: ServerFacts,
  position: Position | undefined,
  holdsSlot: boolean,
): ResumePlan {
  const slot = server.slot;
  const again = wanted.snapshot === 'when-needed' || wanted.snapshot === 'only';
  if (wanted.snapshot === 'only' && position?.phase === 'done') return { kind: 'finished' };
  if (slot !== undefined && slot.activePid !== null && !holdsSlot) return { kind: 'busy', pid: slot.activePid };
  if (position === undefined || position.phase === 'done') {
    if (wanted.snapshot === 'never') return { kind: slot === undefined ? 'create' : 'adopt' };
    if (slot === undefined || again) return { kind: 'snapshot', because: undefined };
    return { kind: 'refused', error: unknownSlot(wanted, slot) };
  }
  if (position.phase === 'snapshot') return { kind: 'snapshot', because: undefined };
  // Before all checks: what is dropped may be gone already.
  if (wanted.snapshot === 'only' && position.snapshots.length === 0) return { kind: 'finish' };
  const refusal = refuse(wanted, server, position);
  if (refusal === undefined) return { kind: 'resume', position, added: tablesAdded(wanted, position) };
  if (again) return { kind: 'snapshot', because: refusal };
  return { kind: 'refused', error: refusal };
}

function unknownSlot(wanted: Wanted, slot: SlotFacts): CaptureError {
  return new CaptureError(
    'CDC_SLOT_UNKNOWN',
    `slot "${wanted.slot}" exists but there is no position for it, so what it has confirmed may never have been published. ` +
      'Restore the position topic, or use snapshot "when-needed" (drops the slot and takes a snapshot), or "never" to go on from where the slot stands.',
    { slot: wanted.slot, confirmedFlushLsn: formatLsn(slot.confirmedFlushLsn) },
  );
}

const REMEDY =
  'Changes in between cannot be read from the WAL any more: take a new snapshot (snapshot "when-needed" does it by itself).';

function refuse(wanted: Wanted, server: ServerFacts, position: Position): CaptureError | undefined {
  const { slot } = server;
  const end = formatLsn(position.endLsn);
  if (server.systemId !== position.systemId) {
    return new CaptureError(
      'CDC_OTHER_CLUSTER',
      `the server is cluster ${server.systemId}, the position belongs to cluster ${position.systemId}. Correct the connection string, or take a new snapshot of this cluster (snapshot "when-needed").`,
      { found: server.systemId, expected: position.systemId },
    );
  }
  if (server.timelineSwitch !== undefined && server.timelineSwitch < position.endLsn) {
    const left = formatLsn(server.timelineSwitch);
    return new CaptureError(
      'CDC_TIMELINE_DIVERGED',
      `timeline ${server.timeline} left timeline ${position.timeline} at ${left}, before the position ${end}: what was published after it does not exist on this server. ${REMEDY}`,
      { timeline: server.timeline, switchLsn: left, endLsn: end },
    );
  }
  if (slot === undefined) {
    return new CaptureError(
      'CDC_SLOT_MISSING',
      `slot "${wanted.slot}" does not exist, but the position says ${end} was published from it. ${REMEDY}`,
      { slot: wanted.slot, endLsn: end },
    );
  }
  if (slot.walStatus === 'lost' || slot.invalidationReason !== null) {
    const reason = slot.invalidationReason ?? 'wal_removed';
    return new CaptureError(
      'CDC_SLOT_LOST',
      `slot "${wanted.slot}" was invalidated by the server: wal_status=${slot.walStatus}, reason ${reason}, max_slot_wal_keep_size=${server.maxSlotWalKeepSize}. ${REMEDY} Raise max_slot_wal_keep_size if capture may be down this long.`,
      { slot: wanted.slot, walStatus: slot.walStatus, reason, maxSlotWalKeepSize: server.maxSlotWalKeepSize },
    );
  }
  // A slot that was dropped and made again starts after the position as well: its creation writes WAL.
  if (slot.confirmedFlushLsn > position.endLsn || slot.plugin !== 'pgoutput') {
    const confirmed = formatLsn(slot.confirmedFlushLsn);
    return new CaptureError(
      'CDC_SLOT_AHEAD',
      `slot "${wanted.slot}" (${slot.plugin}) has confirmed_flush_lsn ${confirmed}, the position ends at ${end}: the slot was advanced, or dropped and made again, and what lies between would be skipped. ${REMEDY}`,
      { slot: wanted.slot, confirmedFlushLsn: confirmed, endLsn: end },
    );
  }
  const dropped = publicationDropped(wanted.publication, server, position);
  if (dropped !== undefined) return dropped;
  const unpublished = (server.unpublished ?? []).filter((table) => position.keys[table] !== undefined);
  if (unpublished.length > 0) {
    return new CaptureError(
      'CDC_TABLE_UNPUBLISHED',
      `${unpublished.join(', ')} ${unpublished.length === 1 ? 'is' : 'are'} captured and not published any more: dropped and made again, or taken out of publication "${wanted.publication}". What was written to it since is not in the stream. ${REMEDY}`,
      { tables: unpublished, publication: wanted.publication },
    );
  }
  return refuseKeys(wanted, position);
}

/** Tables whose present rows were never published, and are wanted. */
function tablesAdded({ keys, snapshot }: Wanted, position: Position): readonly string[] {
  return snapshot === 'never' ? [] : Object.keys(keys).filter((table) => position.keys[table] === undefined);
}

function refuseKeys(wanted: Wanted, position: Position): CaptureError | undefined {
  for (const [table, key] of Object.entries(wanted.keys)) {
    const before = position.keys[table];
    if (before !== undefined && before.join('\0') !== key.join('\0')) return keyChanged(table, before, key);
  }
  return undefined;
}

export function keyChanged(table: string, before: readonly string[], now: readonly string[]): CaptureError {
  return new CaptureError(
    'CDC_KEY_CHANGED',
    `the key of ${table} was (${before.join(', ')}) and is now (${now.join(', ')}). One topic never holds keys of two shapes: restore the key, or capture the table into a new topic under a new capture name.`,
    { table, before, now },
  );
}

/** A publication that is gone, or another one of its name. Since Postgres 18 the stream goes on without it, and leaves its rows out in silence. */
export function publicationDropped(
  publication: string,
  server: Pick<ServerFacts, 'publication'>,
  position: Pick<Position, 'publication' | 'endLsn'>,
): CaptureError | undefined {
  if (server.publication === position.publication) return undefined;
  const end = formatLsn(position.endLsn);
  const again = server.publication === undefined ? '' : ' and made again';
  return new CaptureError(
    'CDC_PUBLICATION_MISSING',
    `publication "${publication}" was dropped${again} since the position ${end}. Making it again does not cover WAL written without it. ${REMEDY}`,
    { publication, endLsn: end },
  );
}
