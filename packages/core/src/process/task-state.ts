import type { LogRecord, OutRecord } from '../log/log.js';
import type { DueTimer } from './processor.js';

/**
 * The committed state of one task (one partition of all inputs), and nothing else. It is a fold of the state topic:
 * `s:<key>` user state, `t:<id>` a timer, `p:<key>` a parked key, `o:<topic>` the input offset that this state includes.
 */
export class TaskState {
  readonly #entries = new Map<string, Buffer>();
  readonly #timers = new Map<string, number>();

  get(entry: string): Buffer | undefined {
    return this.#entries.get(entry);
  }

  /** P2: called for committed records only, in their order. */
  apply(entry: string, value: Buffer | null): void {
    if (entry.startsWith('t:')) {
      if (value === null) this.#timers.delete(entry.slice(2));
      else this.#timers.set(entry.slice(2), Number(value.toString('utf8')));
    }
    if (value === null) this.#entries.delete(entry);
    else this.#entries.set(entry, value);
  }

  restore(record: LogRecord): void {
    if (record.key !== null) this.apply(record.key.toString('utf8'), record.value);
  }

  /** The input offset this state includes, or undefined when it never saw the topic. */
  includedOffset(topic: string): number | undefined {
    const value = this.#entries.get(`o:${topic}`);
    return value === undefined ? undefined : Number(value.toString('utf8'));
  }

  dueTimers(now: number): DueTimer[] {
    const due: DueTimer[] = [];
    for (const [id, atMs] of this.#timers) if (atMs <= now) due.push({ id, atMs });
    return due.sort((a, b) => a.atMs - b.atMs || (a.id < b.id ? -1 : 1));
  }

  nextTimerAt(): number | undefined {
    let next: number | undefined;
    for (const atMs of this.#timers.values()) if (next === undefined || atMs < next) next = atMs;
    return next;
  }

  /** All entries, sorted, for comparing a restored copy with a live one. */
  dump(): readonly (readonly [string, string])[] {
    return [...this.#entries]
      .map(([entry, value]) => [entry, value.toString('base64')] as const)
      .sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }
}

/** What handling changed on top of a base: entries written and records sent. Layers stack: batch over state, record over batch. */
export class WriteSet {
  readonly entries = new Map<string, Buffer | null>();
  readonly sent: OutRecord[] = [];
  readonly #below: { get(entry: string): Buffer | undefined };

  constructor(below: { get(entry: string): Buffer | undefined }) {
    this.#below = below;
  }

  get(entry: string): Buffer | undefined {
    const own = this.entries.get(entry);
    return own === undefined ? this.#below.get(entry) : (own ?? undefined);
  }

  set(entry: string, value: Buffer | null): void {
    this.entries.set(entry, value);
  }

  /** Takes over everything of a layer above. */
  merge(above: WriteSet): void {
    for (const [entry, value] of above.entries) this.entries.set(entry, value);
    for (const record of above.sent) this.sent.push(record);
  }
}
