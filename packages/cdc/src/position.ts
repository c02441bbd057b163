import type { Log, LogRecord, OutRecord } from '@headwater/core';
import { errorMessage } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { formatLsn, parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';

/** How far the log has got, written in the same log transaction as the records. */
export interface Position {
  /** `snapshot`: one was begun and is not finished. `done`: a snapshot without a stream was finished. */
  readonly phase: 'snapshot' | 'streaming' | 'done';
  readonly systemId: string;
  readonly timeline: number;
  readonly slot: string;
  /** OID of the publication: one made again does not cover what was written without it. */
  readonly publication: number;
  /** LSN of the last published commit record (Begin.finalLsn); transactions up to it are skipped when they come again. */
  readonly commitLsn: Lsn;
  /** What may be acknowledged once this is committed. Not comparable with commit LSNs. */
  readonly endLsn: Lsn;
  readonly xid: number;
  /** Key columns by table, so that a topic never holds keys of two shapes. */
  readonly keys: Readonly<Record<string, readonly string[]>>;
  /** Snapshots that are unfinished: each has records of its own beside this one. */
  readonly snapshots: readonly string[];
  /** Signs signals, hex. Absent until capture has streamed once. */
  readonly signalKey?: string;
}

export function positionRecord(topic: string, name: string, position: Position): OutRecord {
  const { commitLsn, endLsn, ...rest } = position;
  const value = { ...rest, commitLsn: formatLsn(commitLsn), endLsn: formatLsn(endLsn) };
  return { topic, partition: 0, key: Buffer.from(name), value: Buffer.from(JSON.stringify(value)) };
}

export function parsePosition(bytes: Buffer): Position {
  try {
    const raw = JSON.parse(bytes.toString()) as Omit<Position, 'commitLsn' | 'endLsn'> & Record<string, string>;
    const { phase, systemId, timeline, slot, publication, xid, keys, signalKey } = raw;
    if (!['snapshot', 'streaming', 'done'].includes(phase)) throw new RangeError(`unknown phase ${phase}`);
    const lsns = { commitLsn: parseLsn(String(raw['commitLsn'])), endLsn: parseLsn(String(raw['endLsn'])) };
    // A position of an older release knows neither.
    const snapshots = raw.snapshots ?? [];
    return { phase, systemId, timeline, slot, publication, xid, keys, snapshots, signalKey, ...lsns };
  } catch (error) {
    throw new CaptureError(
      'CDC_POSITION_INVALID',
      `the last position record cannot be read: ${errorMessage(error)}. Restore the position topic, or delete it together with the slot and take a new snapshot.`,
      { value: bytes.toString() },
      error,
    );
  }
}

/** The last committed position, or undefined. Reads to the last stable offset as it is now: fence first for the final truth. */
export async function readPosition(log: Log, topic: string, name: string): Promise<Position | undefined> {
  const [bounds] = await log.admin.offsets(topic);
  if (bounds === undefined || bounds.start >= bounds.lastStable) return undefined;
  // The record sought is near the end unless the topic is shared and this capture slept long.
  for (const from of [Math.max(bounds.start, bounds.lastStable - 200), bounds.start]) {
    let last: LogRecord | undefined;
    await readRecords(log, topic, 0, from, bounds.lastStable, (record) => {
      if (record.key?.toString() === name) last = record;
    });
    if (last !== undefined) return last.value === null ? undefined : parsePosition(last.value);
    if (from === bounds.start) return undefined;
  }
  return undefined;
}

/** As `readPosition`, also where nothing was ever written. */
export async function readPositionIfAny(log: Log, topic: string, name: string): Promise<Position | undefined> {
  return (await log.admin.partitionCounts([topic])).has(topic) ? readPosition(log, topic, name) : undefined;
}

/** Reads one partition from `from` up to `to`, waiting for what is not decided yet; ends early when the signal aborts. */
export async function readRecords(
  log: Log,
  topic: string,
  partition: number,
  from: number,
  to: number,
  each: (record: LogRecord) => void,
  signal?: AbortSignal,
): Promise<void> {
  const reader = log.reader();
  try {
    reader.seek(topic, partition, from);
    for (let next = from; next < to && signal?.aborted !== true;) {
      for (const batch of await reader.poll({ maxWaitMs: 500, ...(signal && { signal }) })) {
        next = batch.nextOffset;
        for (const record of batch.records) if (record.offset < to) each(record);
      }
    }
  } finally {
    await reader.close();
  }
}
