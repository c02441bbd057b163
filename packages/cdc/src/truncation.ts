import { headerText, partitionOf } from '@headwater/core';
import type { Log, LogRecord } from '@headwater/core';
import type { Lsn } from './lsn.js';
import { placeNamed, placeOf } from './place.js';
import { readRecords } from './position.js';
import { emptiedKey } from './rows.js';
import type { TableShape } from './rows.js';
import { passesFor } from './snapshot/leftovers.js';
import type { SnapshotWindow, WindowOutput } from './snapshot-window.js';

/** What a TRUNCATE asks of the world besides the stream. */
export interface TruncationPorts {
  readonly log: Log;
  /** Writes all complete source transactions and waits for them. */
  readonly settle: () => Promise<void>;
  /** Behind the last record that was committed there in this life: the log may not yet show it. */
  readonly committedEnd: (topic: string, partition: number) => number | undefined;
  readonly signal: AbortSignal;
  /** Writes what is collected when it is much. */
  readonly makeRoom: () => Promise<void>;
  /** Places of keys of the table that are parked: their changes would come after it. */
  readonly parkedPlaces: (shape: TableShape) => readonly string[];
}

/** Adds a tombstone with `hw_op` `t`; `partition`: else that of the key. */
export type AddEmptied = (key: string, partition?: number) => void;

/**
 * Turns a TRUNCATE into records, in its place. With `tombstones`: one for every key of the table that lives in its topic or was written by
 * this same transaction, read from the topic while the stream waits. With `marker`: in each partition one tombstone with the empty key: all
 * keys of the table before it are gone.
 */
export class Truncations {
  /** Places of keys that the open transaction has written, by table: no reader of the topic sees them yet. */
  readonly #own = new Map<string, Set<string>>();

  constructor(
    private readonly policy: 'tombstones' | 'marker',
    private readonly ports: TruncationPorts,
  ) {}

  /** Looks on what snapshots are told, to learn the keys of the open transaction. */
  watching(window: SnapshotWindow): SnapshotWindow {
    return this.policy === 'marker' ? window : new OwnKeys(window, this.#own);
  }

  async empty(shape: TableShape, add: AddEmptied): Promise<void> {
    const { log, makeRoom, settle, parkedPlaces } = this.ports;
    if (this.policy === 'marker') {
      const partitions = (await log.admin.partitionCounts([shape.topic])).get(shape.topic) ?? 0;
      for (let partition = 0; partition < partitions; partition++) add(emptiedKey(shape), partition);
      for (const { key, partition } of parkedPlaces(shape).map(placeNamed)) add(key, partition);
      return;
    }
    await settle();
    const own = new Set([...(this.#own.get(shape.table) ?? []), ...parkedPlaces(shape)]);
    this.#own.delete(shape.table);
    const bury = (place: string) => {
      const { key, partition } = placeNamed(place);
      add(key, partition);
    };
    for (const place of own) bury(place);
    // Not up to the high watermark: parts of the open transaction may lie there, which is decided only after this.
    const ends = (await log.admin.offsets(shape.topic)).map(({ partition, start, lastStable }) => {
      const end = Math.max(lastStable, this.ports.committedEnd(shape.topic, partition) ?? 0);
      return { partition, start, end };
    });
    const passes = passesFor(ends.map(({ end }) => end));
    for (let pass = 0; pass < passes; pass++) {
      let count = 0;
      for (const place of await this.#live(shape, ends, pass, passes)) {
        if (own.has(place)) continue;
        bury(place);
        if (++count % 1_000 === 0) await makeRoom();
      }
    }
    await makeRoom();
  }

  /** Places of one pass that are live in the topic: memory stays bounded however many there are. */
  async #live(shape: TableShape, ends: readonly Stretch[], pass: number, passes: number): Promise<ReadonlySet<string>> {
    const { log, signal } = this.ports;
    const live = new Set<string>();
    const each = ({ key, partition, value, headers }: LogRecord) => {
      if (key === null || partitionOf(key, passes) !== pass || headerText(headers, 'hw_table') !== shape.table) return;
      const place = placeOf(key, partition, ends.length);
      if (value === null) live.delete(place);
      else live.add(place);
    };
    for (const { partition, start, end } of ends) {
      if (start < end) await readRecords(log, shape.topic, partition, start, end, each, signal);
    }
    signal.throwIfAborted();
    return live;
  }
}

interface Stretch {
  readonly partition: number;
  readonly start: number;
  readonly end: number;
}

/** Notes changed places on their way to the snapshots, which hear what they would hear without it. */
class OwnKeys implements SnapshotWindow {
  readonly active = true;
  #isTold = false;

  constructor(
    private readonly to: SnapshotWindow,
    private readonly places: Map<string, Set<string>>,
  ) {}

  begin(xid: number): void {
    this.places.clear();
    this.#isTold = this.to.active;
    if (this.#isTold) this.to.begin(xid);
  }

  watches(_table: string): boolean {
    return true;
  }

  changed(table: string, place: string, whole: boolean): void {
    const places = this.places.get(table);
    if (places === undefined) this.places.set(table, new Set([place]));
    else places.add(place);
    if (this.#isTold && this.to.watches(table)) this.to.changed(table, place, whole);
  }

  disturbed(table: string): void {
    if (this.#isTold && this.to.watches(table)) this.to.disturbed(table);
  }

  watermark(content: Buffer, lsn: Lsn): WindowOutput | undefined {
    return this.to.watermark(content, lsn);
  }

  signal(content: Buffer, lsn: Lsn): WindowOutput | undefined {
    return this.to.signal(content, lsn);
  }
}
