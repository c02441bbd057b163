import type { Log, LogRecord, OutRecord } from '@headwater/core';
import { errorCode, errorMessage } from '@headwater/core';
import { CaptureError } from '../cdc.errors.js';
import { readRecords } from '../position.js';
import type { Stretch } from './chunk-query.js';

/** A stretch of a table and how far it is published. */
export interface RangeState extends Stretch {
  readonly rows: number;
  readonly done: boolean;
}

/** What was found out about a table before its first chunk. */
export interface TablePlan {
  /** Per partition of its topic, where it ended: what lies before may hold keys that the table has lost. */
  readonly topicEnds: readonly number[];
  readonly expectedRows: number;
  readonly ranges: readonly RangeState[];
}

export interface TableState {
  readonly table: string;
  /** Where its topic ended before the stream began; null: looked up with the plan. */
  readonly topicEnds?: readonly number[] | null;
  readonly plan: TablePlan | null;
  readonly done: boolean;
}

/**
 * One snapshot as it stands in the log. `needed`: capture cannot be right without it, so that its failure halts capture; `asked`: its failure ends only itself.
 */
export interface SnapshotState {
  readonly id: string;
  readonly cause: 'needed' | 'asked';
  readonly paused: boolean;
  /** SQL condition on the rows of its tables; keys that it leaves out get no record. */
  readonly where: string | null;
  readonly tables: readonly TableState[];
}

/** Ids of the snapshots that capture begins by itself: of all tables, and of tables added at an LSN. */
export const INITIAL = 'initial';
const ADDED = 'added-';
export const addedAt = (lsn: string): string => `${ADDED}${lsn.replace('/', '-')}`;

export const causeOf = (id: string): SnapshotState['cause'] =>
  id === INITIAL || id.startsWith(ADDED) ? 'needed' : 'asked';

export function newSnapshot(id: string, tables: readonly string[], where: string | null = null): SnapshotState {
  return {
    id,
    cause: causeOf(id),
    paused: false,
    where,
    tables: tables.map((table) => ({ table, plan: null, done: false })),
  };
}

/** Per partition of a topic, where it ends; 0 where it is empty. */
export async function topicEndsOf(log: Log, topic: string): Promise<readonly number[]> {
  const ends: number[] = [];
  // Not the last stable offset: markers of what was committed before may be under way.
  for (const { partition, start, high } of await log.admin.offsets(topic)) ends[partition] = high > start ? high : 0;
  return ends;
}

/** The snapshot with the ends of its topics as they are now: to be called while nothing is streamed into them. */
export async function withTopicEnds(
  snapshot: SnapshotState,
  log: Log,
  topicOf: (table: string) => string | undefined,
): Promise<SnapshotState> {
  const tables = snapshot.tables.map(async (state) => {
    const topic = topicOf(state.table);
    return topic === undefined ? state : { ...state, topicEnds: await endsOrNone(log, topic) };
  });
  return { ...snapshot, tables: await Promise.all(tables) };
}

/** A missing topic is told where its first row is to be written. */
async function endsOrNone(log: Log, topic: string): Promise<readonly number[] | null> {
  try {
    return await topicEndsOf(log, topic);
  } catch (error) {
    if (errorCode(error) === 'LOG_TOPIC_MISSING') return null;
    throw error;
  }
}

export const isDone = (snapshot: SnapshotState): boolean => snapshot.tables.every(({ done }) => done);

/** Where the states of a capture stand in its position topic: one record per snapshot, one per table of it. */
export class SnapshotRecords {
  constructor(
    private readonly topic: string,
    private readonly name: string,
  ) {}

  /** The snapshot without how far its tables are. */
  head({ id, cause, paused, where, tables }: SnapshotState): OutRecord {
    return this.#record(this.#key(id), { id, cause, paused, where, tables: tables.map(({ table }) => table) });
  }

  table(id: string, state: TableState): OutRecord {
    return this.#record(this.#key(id, state.table), state);
  }

  /** Everything of a snapshot that begins. */
  begun(snapshot: SnapshotState): OutRecord[] {
    return [this.head(snapshot), ...snapshot.tables.map((table) => this.table(snapshot.id, table))];
  }

  /** Tombstones for everything of a snapshot that is over. */
  over({ id, tables }: SnapshotState): OutRecord[] {
    return [this.#key(id), ...tables.map(({ table }) => this.#key(id, table))].map((key) => this.#record(key, null));
  }

  /**
   * The unfinished snapshots with these ids, as the position names them. Looks near the end of the topic first: they are written
   * again with every chunk. Throws CDC_POSITION_INVALID when one is missing or cannot be read.
   */
  async read(log: Log, ids: readonly string[]): Promise<SnapshotState[]> {
    if (ids.length === 0) return [];
    const [bounds] = await log.admin.offsets(this.topic);
    const { start, lastStable } = bounds ?? { start: 0, lastStable: 0 };
    for (let tail = 1_000; ; tail *= 20) {
      const from = Math.max(start, lastStable - tail);
      const last = new Map<string, LogRecord>();
      if (from < lastStable) {
        await readRecords(log, this.topic, 0, from, lastStable, (record) => {
          const key = record.key?.toString() ?? '';
          if (key.startsWith(`${this.name}/snapshot/`)) last.set(key, record);
        });
      }
      try {
        return ids.map((id) => this.#assembled(id, last));
      } catch (error) {
        if (from === start) throw error;
      }
    }
  }

  #assembled(id: string, records: ReadonlyMap<string, LogRecord>): SnapshotState {
    const head = parsed(records, this.#key(id)) as Omit<SnapshotState, 'tables'> & { tables: string[] };
    return { ...head, tables: head.tables.map((table) => parsed(records, this.#key(id, table)) as TableState) };
  }

  #key(id: string, table?: string): string {
    return `${this.name}/snapshot/${id}${table === undefined ? '' : `/${table}`}`;
  }

  #record(key: string, value: object | null): OutRecord {
    const bytes = value === null ? null : Buffer.from(JSON.stringify(value));
    return { topic: this.topic, partition: 0, key: Buffer.from(key), value: bytes };
  }
}

function parsed(records: ReadonlyMap<string, LogRecord>, key: string): unknown {
  const value = records.get(key)?.value;
  try {
    if (value === null || value === undefined) throw new RangeError('there is none');
    return JSON.parse(value.toString());
  } catch (error) {
    throw new CaptureError(
      'CDC_POSITION_INVALID',
      `the state record "${key}" of an unfinished snapshot cannot be read: ${errorMessage(error)}. Restore the position topic, or delete it together with the slot and take a new snapshot.`,
      { key },
      error,
    );
  }
}
