import type { ClassicLevel } from 'classic-level';
import type { StateChange, StateStore } from '@headwater/core';
import { diskFailed } from './level-state.errors.js';
import { META, writeMeta, type LevelMeta } from './level-meta.js';
import { ReadCache } from './read-cache.js';

export type Database = ClassicLevel<string, Buffer>;

export interface LevelStoreContext {
  /** The directory. */
  readonly place: string;
  readonly database: Database;
  readonly meta: LevelMeta;
  readonly cacheBytes: number;
  readonly flushMs: number;
  /** Closes and wipes the database and opens it anew. */
  readonly reopen: (database: Database) => Promise<Database>;
}

type Entries = Map<string, Buffer | null>;

/** Whoever applies waits while more than this is not yet written. */
const MOST_PENDING_BYTES = 32 << 20;
const ENTRY_BYTES = 200;
/** Puts into a batch before other work gets its turn. */
const PUTS_AT_ONCE = 500;
const LARGEST_SHARED_BYTES = 16_384;
/** Sorts behind every entry: their names begin with a letter. */
const BEHIND_ALL = '\u{10ffff}';

/**
 * A task's state in LevelDB. What is applied is readable at once from memory and written behind, one batch after the other, the stamp in the
 * same batch as its entries. So the directory is always a whole earlier stamp, and the engine never waits for the disk unless it is far behind.
 */
export class LevelStore implements StateStore {
  readonly #context: LevelStoreContext;
  readonly #cache: ReadCache;
  #database: Database;
  #pending: Entries = new Map();
  #pendingBytes = 0;
  #writing: Entries = new Map();
  #stamp: number;
  #savedAtMs: number;
  #flushing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;

  constructor(context: LevelStoreContext) {
    this.#context = context;
    this.#database = context.database;
    this.#cache = new ReadCache(context.cacheBytes);
    this.#stamp = context.meta.stamp;
    this.#savedAtMs = context.meta.savedAtMs;
  }

  get stamp(): number {
    return this.#stamp;
  }

  get savedAtMs(): number {
    return this.#savedAtMs;
  }

  get(entry: string): Buffer | undefined {
    let value = this.#pending.get(entry);
    if (value === undefined) value = this.#writing.get(entry);
    if (value === undefined) value = this.#cache.get(entry);
    if (value === undefined) {
      value = this.#database.getSync(entry) ?? null;
      this.#cache.set(entry, value);
    }
    return value ?? undefined;
  }

  async *entries(prefix: string): AsyncGenerator<readonly [string, Buffer]> {
    await this.#flushAll();
    for await (const pair of this.#database.iterator({ gte: prefix, lt: `${prefix}\u{10ffff}` }))
      if (pair[0] !== META) yield pair;
  }

  apply(entries: Iterable<StateChange>, stamp: number): void | Promise<void> {
    if (this.#failure !== undefined) throw diskFailed(this.#context.place, this.#failure.error);
    for (const [entry, value] of entries) {
      const own = value !== null && value.buffer.byteLength > LARGEST_SHARED_BYTES ? Buffer.from(value) : value;
      this.#pending.set(String(entry), own);
      this.#pendingBytes += ENTRY_BYTES + (value?.length ?? 0);
    }
    this.#stamp = stamp;
    this.#savedAtMs = Date.now();
    if (this.#pendingBytes > MOST_PENDING_BYTES) return this.#flush();
    this.#timer ??= setTimeout(() => void this.#flush().catch(() => undefined), this.#context.flushMs); // the next apply tells
  }

  async clear(): Promise<void> {
    await this.#settle();
    this.#pending = new Map();
    this.#pendingBytes = 0;
    this.#cache.clear();
    this.#database = await this.#context.reopen(this.#database);
    this.#stamp = 0;
    this.#savedAtMs = 0;
    this.#failure = undefined;
  }

  /** What was applied is on disk afterwards, in tables: whoever opens it next has no log to read again. May be called twice. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      await this.#flushAll();
      // A compaction of nothing: LevelDB writes what it has in memory to a table first, which its own close does not (DBImpl::CompactRange).
      await this.#database.compactRange(BEHIND_ALL, BEHIND_ALL);
    } finally {
      clearTimeout(this.#timer);
      await this.#database.close();
    }
  }

  async #flushAll(): Promise<void> {
    await this.#flushing;
    await this.#flush();
  }

  /** Ends what is being written, and schedules nothing more. */
  async #settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#flushing?.catch(() => undefined); // what it would have kept is about to be wiped
  }

  /** One at a time. Resolves when what was applied before the call is written. */
  async #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#failure !== undefined) throw diskFailed(this.#context.place, this.#failure.error);
    const meta = { ...this.#context.meta, stamp: this.#stamp, savedAtMs: this.#savedAtMs };
    this.#writing = this.#pending;
    this.#pending = new Map();
    this.#pendingBytes = 0;
    this.#flushing = this.#write(this.#writing, meta).finally(() => (this.#flushing = undefined));
    await this.#flushing;
  }

  async #write(entries: Entries, meta: LevelMeta): Promise<void> {
    try {
      const batch = this.#database.batch();
      let puts = 0;
      for (const [entry, value] of entries) {
        if (value === null) batch.del(entry);
        else batch.put(entry, value);
        if (++puts % PUTS_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      batch.put(META, writeMeta(meta));
      // Synced: LevelDB skips a damaged part in the middle of its log, so at most the last batch may be at stake in a power cut.
      await batch.write({ sync: true });
    } catch (error) {
      this.#failure = { error };
      throw diskFailed(this.#context.place, error);
    }
    for (const [entry, value] of entries) this.#cache.set(entry, value);
    this.#writing = new Map();
  }
}
