import type { LogRecord } from '../log/log.js';
import type { DueTimer } from './processor.js';
import type { StateChange, StateStore } from './state-store.js';
import { TimerQueue } from './timer-queue.js';
import type { Entries } from './write-set.js';

/**
 * The committed state of one task (one partition of all inputs), and nothing else. It is a fold of the state topic:
 * `s:<key>` user state, `t:<id>` a timer, `p:<sequence>` what is parked, `q:<sequence>/<n>` its nth record or timer, `o:<topic>` the
 * input offset that this state includes, `v:topology` what it was made from.
 * It outlives assignments: whoever gets the partition again reads the state topic only from the stamp on.
 */
export class TaskState implements Entries {
  readonly #store: StateStore;
  readonly #timers = new TimerQueue();
  readonly #parked = new Set<string>();

  private constructor(store: StateStore) {
    this.#store = store;
  }

  /** Reads the timers and parked keys of the store, which it owns from now on. */
  static async open(store: StateStore): Promise<TaskState> {
    const state = new TaskState(store);
    for await (const [entry, value] of store.entries('t:')) state.#timers.set(entry.slice(2), timeOf(value));
    for await (const [entry] of store.entries('p:')) state.#parked.add(entry);
    return state;
  }

  /** The offset of the state topic up to which this state is complete. */
  get stamp(): number {
    return this.#store.stamp;
  }

  /** When the stamp was taken, or undefined where that does not matter: a copy in memory. */
  get savedAtMs(): number | undefined {
    return this.#store.savedAtMs;
  }

  /** How many sequences are parked: keys, timers, records without key. */
  get parkedSequences(): number {
    return this.#parked.size;
  }

  get(entry: string): Buffer | undefined {
    return this.#store.get(entry);
  }

  /** P2: called for committed entries only, in their order. */
  async apply(entries: ReadonlyMap<string, Buffer | null>, stamp: number): Promise<void> {
    await this.#store.apply(this.#indexed(entries), stamp);
  }

  /** Takes what was read of the state topic. */
  async restore(records: readonly LogRecord[], stamp: number): Promise<void> {
    await this.#store.apply(this.#indexed(named(records)), stamp);
  }

  async clear(): Promise<void> {
    this.#timers.clear();
    this.#parked.clear();
    await this.#store.clear();
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  /** The input offset this state includes, or undefined when it never saw the topic. */
  includedOffset(topic: string): number | undefined {
    const value = this.get(`o:${topic}`);
    return value === undefined ? undefined : Number(value.toString('utf8'));
  }

  dueTimers(now: number): DueTimer[] {
    return this.#timers.due(now);
  }

  nextTimerAt(): number | undefined {
    return this.#timers.nextAt();
  }

  /** All entries, sorted, for comparing a restored copy with a live one. */
  async dump(): Promise<readonly (readonly [string, string])[]> {
    const entries: [string, string][] = [];
    for await (const [entry, value] of this.#store.entries('')) entries.push([entry, value.toString('base64')]);
    return entries.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }

  *#indexed(changes: Iterable<StateChange>): Iterable<StateChange> {
    for (const change of changes) {
      const kind = kindOf(change[0]);
      if (kind === TIMER || kind === PARKED) this.#index(kind, String(change[0]), change[1]);
      yield change;
    }
  }

  #index(kind: number, entry: string, value: Buffer | null): void {
    if (kind === TIMER) {
      if (value === null) this.#timers.cancel(entry.slice(2));
      else this.#timers.set(entry.slice(2), timeOf(value));
    } else if (value === null) this.#parked.delete(entry);
    else this.#parked.add(entry);
  }
}

function* named(records: readonly LogRecord[]): Iterable<StateChange> {
  for (const { key, value } of records) if (key !== null) yield [key, value];
}

/** The letter before the colon; 0: there is none. */
function kindOf(entry: string | Buffer): number {
  if (typeof entry === 'string') return entry.charCodeAt(1) === COLON ? entry.charCodeAt(0) : 0;
  return entry[1] === COLON ? entry[0]! : 0;
}

const COLON = ':'.charCodeAt(0);
const TIMER = 't'.charCodeAt(0);
const PARKED = 'p'.charCodeAt(0);

function timeOf(value: Buffer): number {
  return Number(value.toString('utf8'));
}
