import { PagedValues } from './paged-values.js';

/**
 * Where a task keeps its committed entries: a copy of its partition of the state topic up to `stamp`, never ahead of it.
 * A store may lose its newest batches in a crash, whole batches only: it then catches up from its stamp.
 */
export interface StateStore {
  /** The offset of the state topic below which everything is included. 0: nothing is. */
  readonly stamp: number;
  /** Wall time of the stamp, milliseconds since 1970; 0: there is none. A copy of memory that never outlives its process needs none. */
  readonly savedAtMs?: number;
  /** Synchronous: handlers read in the middle of a record. */
  get(entry: string): Buffer | undefined;
  /** The entries whose name begins with `prefix`, in any order. */
  entries(prefix: string): StateEntries;
  /**
   * Takes committed entries (`null` deletes; a later one of the same name replaces the earlier) and the new stamp, both or neither. Seen
   * by `get` when it resolves. The buffers are the caller's: what is kept of them is copied.
   */
  readonly apply: (entries: Iterable<StateChange>, stamp: number) => void | Promise<void>;
  /** Forgets everything; the stamp is 0 again. */
  clear(): void | Promise<void>;
  close(): Promise<void>;
}

/** A name comes as text or as its UTF-8 bytes, as the state topic has it; both are the same entry. */
export type StateChange = readonly [entry: string | Buffer, value: Buffer | null];
type StateEntry = readonly [entry: string, value: Buffer];
export type StateEntries = Iterable<StateEntry> | AsyncIterable<StateEntry>;

/** Whose state is meant. */
export interface StateTask {
  readonly processor: string;
  readonly partition: number;
  /** Of the state topic: a copy made under another id is of a topic that is gone. Absent: the log cannot tell. */
  readonly topicId?: string;
}

/** Opens the store of one task. Called again only after the previous store of that task has closed. */
export type OpenStateStore = (task: StateTask) => StateStore | Promise<StateStore>;

/** In memory: fast, and restored from the state topic after a restart. */
export function memoryStore(): StateStore {
  const values = new PagedValues();
  let stamp = 0;
  return {
    get stamp() {
      return stamp;
    },
    get: (entry) => values.get(entry),
    *entries(prefix) {
      for (const entry of values.keys()) {
        // Deleted meanwhile, or a name that is no text.
        const value = entry.startsWith(prefix) ? values.get(entry) : undefined;
        if (value !== undefined) yield [entry, value];
      }
    },
    apply(entries, upTo) {
      for (const [entry, value] of entries) {
        if (value === null) values.delete(entry);
        else values.set(entry, value);
      }
      stamp = upTo;
    },
    clear() {
      values.clear();
      stamp = 0;
    },
    close: () => Promise.resolve(),
  };
}
