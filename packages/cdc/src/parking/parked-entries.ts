import { boundsEntry, decodeBounds, decodeParkedUnit, headerText, unitEntry } from '@headwater/core';
import type { Bounds, EntryWrites, Log, OutRecord, ParkedUnit } from '@headwater/core';
import { readRecords } from '../position.js';

/** Of the units of a sequence, how many bytes are held at once. */
const MOST_UNIT_BYTES = 4 * 1024 * 1024;

/** The changes of one key of one topic, in order; of a record without key that record alone. A topic has no slash in its name. */
export function sequenceOf({ topic, key, headers = [] }: OutRecord): string {
  if (key !== null) return `${topic}/${key.toString()}`;
  return `:record:${topic}/${headerText(headers, 'hw_lsn')}/${headerText(headers, 'hw_seq')}`;
}

/** Undefined: nothing can come behind it. */
export function topicOfSequence(sequence: string): string | undefined {
  return sequence.startsWith(':') ? undefined : sequence.slice(0, sequence.indexOf('/'));
}

export interface EntriesSetup {
  readonly log: Log;
  readonly topic: string;
  /** Adds a record to the open unit. */
  readonly put: (record: OutRecord) => void;
  /** A topic has its first parked key, or its last one is gone. */
  readonly onTopic: (topic: string) => void;
}

/**
 * What is parked, in the state topic: an entry per sequence and one per unit. In memory are the sequences only, however much is parked behind them.
 * One per connection, read after the fence: what it has read is what is committed.
 */
export class ParkedEntries implements EntryWrites {
  readonly #entries = new Map<string, Buffer>();
  readonly #keys = new Map<string, number>();
  readonly #last = new Map<string, { readonly table: string; readonly partition: number }>();
  #changes = 0;

  private constructor(private readonly setup: EntriesSetup) {}

  static async read(setup: EntriesSetup): Promise<ParkedEntries> {
    const read = new ParkedEntries(setup);
    await read.#each(Infinity, (entry, value) => {
      if (entry.startsWith('q:')) {
        const sequence = entry.slice(2, entry.lastIndexOf('/'));
        if (value !== null) read.of(sequence, decodeParkedUnit(value));
      } else read.#remember(entry, value);
    });
    return read;
  }

  /** Every entry but those of units, which are in the log only: see `units`. */
  get(entry: string): Buffer | undefined {
    return this.#entries.get(entry);
  }

  set(entry: string, value: Buffer | null): void {
    this.setup.put({ topic: this.setup.topic, partition: 0, key: Buffer.from(entry), value });
    if (entry.startsWith('q:')) return;
    const topic = entry.startsWith('p:') ? topicOfSequence(entry.slice(2)) : undefined;
    const before = topic === undefined ? 0 : this.#keys.get(topic);
    this.#remember(entry, value);
    if (topic !== undefined && !before !== !this.#keys.get(topic)) this.setup.onTopic(topic);
  }

  /** Notes the table of a sequence, and in which partition its last change lies. */
  of(sequence: string, { unit }: Pick<ParkedUnit, 'unit'>): void {
    if (!('record' in unit)) return;
    const { headers, partition } = unit.record;
    const table = headerText(headers, 'hw_table');
    if (table !== undefined) this.#last.set(sequence, { table, partition });
  }

  has(sequence: string): boolean {
    return this.#entries.has(boundsEntry(sequence));
  }

  hasAny(topic: string): boolean {
    return (this.#keys.get(topic) ?? 0) > 0;
  }

  /** The parked keys of a table in a topic, as text, with the partition of the last change. */
  keys(topic: string, table: string): readonly { readonly key: string; readonly partition: number }[] {
    return [...this.#entries.keys()].flatMap((entry) => {
      const last = entry.startsWith(`p:${topic}/`) ? this.#last.get(entry.slice(2)) : undefined;
      return last?.table === table ? [{ key: entry.slice(3 + topic.length), partition: last.partition }] : [];
    });
  }

  get counts(): { readonly changes: number; readonly keys: number } {
    return { changes: this.#changes, keys: [...this.#keys.values()].reduce((sum, count) => sum + count, 0) };
  }

  /** The first units of a sequence by number, at least one, as they are committed before `end`. */
  async units(sequence: string, { first, next }: Bounds, end: number): Promise<ReadonlyMap<number, ParkedUnit>> {
    const found = new Map<number, Buffer>();
    let [bytes, before] = [0, next];
    await this.#each(end, (entry, value) => {
      if (value === null || !entry.startsWith('q:')) return;
      const n = Number(entry.slice(entry.lastIndexOf('/') + 1));
      if (n < first || n >= before || entry !== unitEntry(sequence, n)) return;
      bytes += value.length - (found.get(n)?.length ?? 0);
      found.set(n, value);
      if (bytes > MOST_UNIT_BYTES) before = Math.max(...found.keys()) + 1;
    });
    return new Map([...found].map(([n, value]) => [n, decodeParkedUnit(value)]));
  }

  #remember(entry: string, value: Buffer | null): void {
    const before = this.#entries.get(entry);
    if (value === null) this.#entries.delete(entry);
    else this.#entries.set(entry, value);
    if (!entry.startsWith('p:')) return;
    const sequence = entry.slice(2);
    if (value === null) this.#last.delete(sequence);
    this.#changes += countOf(value) - countOf(before ?? null);
    // Also what has no key is one to an operator.
    const topic = topicOfSequence(sequence) ?? sequence;
    this.#keys.set(topic, (this.#keys.get(topic) ?? 0) + (value === null ? 0 : 1) - (before === undefined ? 0 : 1));
  }

  async #each(upTo: number, each: (entry: string, value: Buffer | null) => void): Promise<void> {
    const { log, topic } = this.setup;
    const [bounds] = await log.admin.offsets(topic);
    const end = upTo === Infinity ? (bounds?.lastStable ?? 0) : upTo;
    if (bounds === undefined || bounds.start >= end) return;
    await readRecords(log, topic, 0, bounds.start, end, ({ key, value }) => {
      if (key !== null) each(key.toString(), value);
    });
  }
}

function countOf(value: Buffer | null): number {
  if (value === null) return 0;
  const { first, next } = decodeBounds(value);
  return next - first;
}
