import type { OutRecord } from '@headwater/core';
import type { Lsn } from './lsn.js';
import type { Sink } from './transaction-assembler.js';

/**
 * What running snapshots want to know of the stream, in its order. The hot path asks `active` once per source transaction and calls neither
 * `begin`, `watches`, `changed` nor `disturbed` while it is false.
 */
export interface SnapshotWindow {
  readonly active: boolean;
  /** A source transaction begins in the stream: every one, also those whose tables are not watched. */
  begin(xid: number): void;
  /** True when rows of this table must be told. */
  watches(table: string): boolean;
  /**
   * A row of a watched table changed: the place of its record (`placeOf`); both places of a row that moved. `whole`: its record has all columns, or
   * is a tombstone.
   */
  changed(table: string, place: string, whole: boolean): void;
  /** TRUNCATE or a new shape of a watched table in the stream. */
  disturbed(table: string): void;
  /**
   * A non-transactional logical message with prefix `headwater.watermark`: what is to be published here, as if it were a source transaction of
   * its own that ends at `lsn`; undefined: nothing (not ours, or not valid any more).
   */
  watermark(content: Buffer, lsn: Lsn): WindowOutput | undefined;
  /** As `watermark`, for the prefix `headwater.signal`. */
  signal(content: Buffer, lsn: Lsn): WindowOutput | undefined;
}

export interface WindowOutput {
  /** Called once, in place: adds the records. */
  readonly emit: (sink: Pick<Sink, 'add'>) => void;
  /** Snapshots that are unfinished from here on: kept in the position. */
  readonly snapshots: readonly string[];
  /** Written with the position: how far they are. */
  readonly states: readonly OutRecord[];
}

/** Prefix of the marks around a read. */
export const WATERMARK_PREFIX = 'headwater.watermark';
/** Prefix of requests to a running capture. */
export const SIGNAL_PREFIX = 'headwater.signal';

/** No snapshot runs. */
export const NO_SNAPSHOTS: SnapshotWindow = {
  active: false,
  begin: () => {},
  watches: () => false,
  changed: () => {},
  disturbed: () => {},
  watermark: () => undefined,
  signal: () => undefined,
};
