import { HeadwaterError } from '../errors/headwater.error.js';
import type { OutRecord } from '../log/log.js';
import type { Table } from './global-table.js';
import type { ProcessContext } from './processor.js';
import { tableUnknown } from './tables.js';
import type { WriteSet } from './write-set.js';

/** What one call of a handler may do, until it is over. One object per call, because there are a hundred thousand a second. */
export class Scope implements ProcessContext {
  readonly now: number;
  readonly #writes: WriteSet;
  readonly #onTimer: ((id: string) => void) | undefined;
  #over = false;
  /** The key asked for last, and its entry: most handlers read what they write. */
  #key: string | undefined;
  #entry = '';

  /** `onTimer` is told of each timer that is set or cancelled. */
  constructor(writes: WriteSet, now: number, onTimer?: (id: string) => void) {
    this.#writes = writes;
    this.now = now;
    this.#onTimer = onTimer;
  }

  get state(): ProcessContext['state'] {
    return this;
  }

  get timers(): ProcessContext['timers'] {
    return this;
  }

  get(key: string): Buffer | undefined {
    return this.#open().get(this.#entryOf(key));
  }

  put(key: string, value: Buffer): void {
    this.#open().set(this.#entryOf(key), value);
  }

  delete(key: string): void {
    this.#open().set(this.#entryOf(key), null);
  }

  set(id: string, atMs: number): void {
    this.#open().set(`t:${id}`, Buffer.from(String(atMs)));
    this.#onTimer?.(id);
  }

  cancel(id: string): void {
    const writes = this.#open();
    if (writes.get(`t:${id}`) !== undefined) writes.set(`t:${id}`, null);
    this.#onTimer?.(id);
  }

  send(record: OutRecord): void {
    this.#open().send(record);
  }

  /** Only processors that declare tables have any: `withTables`. */
  table(topic: string): Table {
    throw tableUnknown(topic);
  }

  /** The handler has returned: what it still tries to do would land in another record's transaction. */
  end(): void {
    this.#over = true;
  }

  #entryOf(key: string): string {
    if (key !== this.#key) {
      this.#key = key;
      this.#entry = `s:${key}`;
    }
    return this.#entry;
  }

  #open(): WriteSet {
    if (this.#over) {
      throw new HeadwaterError(
        'PROCESS_CONTEXT_OVER',
        'the handler of this context has returned. Await everything that uses the context before the handler ends.',
      );
    }
    return this.#writes;
  }
}
