import type { Header, OutRecord } from '../log/log.js';

/** What can be read by entry name: the committed state, or a write set over it. */
export interface Entries {
  get(entry: string): Buffer | undefined;
}

/** What can be read and written by entry name; `null` takes an entry away. */
export interface EntryWrites extends Entries {
  set(entry: string, value: Buffer | null): void;
}

/** Names, lengths and the like. */
const ENTRY_BYTES = 32;

/**
 * What handling changed on top of what is below: entries written and records sent, with one savepoint. Reads see the writes.
 * P5: a failed attempt is rolled back to the savepoint and leaves no trace.
 */
export class WriteSet implements EntryWrites {
  readonly entries = new Map<string, Buffer | null>();
  readonly sent: OutRecord[] = [];
  /** What the writes lie on. Replaced when that has become part of the state. */
  below: Entries;
  /** Entry and former value, alternating, since the savepoint. */
  readonly #undo: (string | Buffer | null | undefined)[] = [];
  #sentBefore = 0;
  #bytes = 0;
  #bytesBefore = 0;

  constructor(below: Entries) {
    this.below = below;
  }

  /** What was written and sent takes, about: of an entry that was written twice, both. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.entries.size === 0 && this.sent.length === 0;
  }

  get(entry: string): Buffer | undefined {
    const own = this.entries.get(entry);
    return own === undefined ? this.below.get(entry) : (own ?? undefined);
  }

  set(entry: string, value: Buffer | null): void {
    this.#undo.push(entry, this.entries.get(entry));
    this.entries.set(entry, value);
    this.#bytes += ENTRY_BYTES + entry.length + (value?.length ?? 0);
  }

  send(record: OutRecord): void {
    this.sent.push(record);
    const { key, value, headers } = record;
    this.#bytes += ENTRY_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
    if (headers !== undefined) this.#bytes += headerBytes(headers);
  }

  savepoint(): void {
    this.#undo.length = 0;
    this.#sentBefore = this.sent.length;
    this.#bytesBefore = this.#bytes;
  }

  rollback(): void {
    for (let at = this.#undo.length - 2; at >= 0; at -= 2) {
      const entry = this.#undo[at] as string;
      const before = this.#undo[at + 1] as Buffer | null | undefined;
      if (before === undefined) this.entries.delete(entry);
      else this.entries.set(entry, before);
    }
    this.#undo.length = 0;
    this.sent.length = this.#sentBefore;
    this.#bytes = this.#bytesBefore;
  }
}

export function headerBytes(headers: readonly Header[]): number {
  let bytes = 0;
  for (const [name, value] of headers) bytes += name.length + (value?.length ?? 0);
  return bytes;
}
