import { LevelBytes } from './level-bytes.js';

/** What the manifest says is part of the database. */
export interface LiveFiles {
  /** Number → size in bytes of each table file. */
  readonly tables: ReadonlyMap<number, number>;
  /** Write-ahead logs below this number are no longer read. */
  readonly logNumber: number;
}

const COMPARATOR = 1;
const LOG_NUMBER = 2;
const NEXT_FILE = 3;
const LAST_SEQUENCE = 4;
const COMPACT_POINTER = 5;
const DELETED_FILE = 6;
const NEW_FILE = 7;
const PREVIOUS_LOG = 9;

/** Folds the version edits of a manifest. Throws RangeError when they are no version edits. */
export function liveFiles(edits: readonly Buffer[]): LiveFiles {
  const tables = new Map<number, number>();
  let logNumber = 0;
  for (const edit of edits) {
    const bytes = new LevelBytes(edit);
    while (!bytes.isAtEnd) {
      const tag = bytes.varint();
      if (tag === COMPARATOR) bytes.skipString();
      else if (tag === LOG_NUMBER) logNumber = bytes.varint();
      else if (tag === NEXT_FILE || tag === LAST_SEQUENCE || tag === PREVIOUS_LOG) bytes.varint();
      else if (tag === COMPACT_POINTER) {
        bytes.varint();
        bytes.skipString();
      } else if (tag === DELETED_FILE) {
        bytes.varint();
        tables.delete(bytes.varint());
      } else if (tag === NEW_FILE) {
        bytes.varint();
        tables.set(bytes.varint(), bytes.varint());
        bytes.skipString();
        bytes.skipString();
      } else throw new RangeError(`a version edit has the unknown tag ${tag}`);
    }
  }
  return { tables, logNumber };
}
