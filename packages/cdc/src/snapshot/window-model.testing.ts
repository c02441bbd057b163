import { seededRandom } from '@headwater/testing';
import type { Random } from '@headwater/testing';
import { parseTxSnapshot } from './tx-snapshot.js';
import { WindowBook } from './window-book.js';

/** What a planted mistake leaves out. */
export type Mistake = 'publish what is behind' | 'publish what changed' | 'read before writers ended';

interface Transaction {
  readonly xid: bigint;
  readonly writes: Map<string, number | undefined>;
  phase: 'running' | 'committing' | 'ended';
}

type WalEntry = { readonly commit: Transaction } | { readonly low: number } | { readonly high: number };

interface Worker {
  readonly keys: readonly string[];
  phase: 'before' | 'open' | 'read' | 'waiting' | 'done';
  window: number;
  rows: Map<string, number>;
}

const KEYS = ['a', 'b', 'c', 'd'];
/** Transaction ids pass 2^32 in the middle of it. */
const FIRST_XID = 2n ** 32n - 6n;

/**
 * One seeded run of a table, its WAL, the stream behind it and two workers that read half of the keys each. A transaction writes its commit record
 * first and becomes visible some time after. Returns what the log got, in order, and what the table holds in the end; how often a read was repeated tells
 * that the branch was taken.
 */
export function runWindows(seed: number, mistake?: Mistake): Outcome {
  const random = seededRandom(seed);
  const run = new Run(random, mistake);
  run.play();
  return { log: run.log, table: run.visible, repeated: run.repeated, dropped: run.dropped, kept: run.book.kept };
}

export interface Outcome {
  readonly log: readonly {
    readonly key: string;
    readonly version: number;
    readonly gone: boolean;
    readonly read: boolean;
  }[];
  readonly table: ReadonlyMap<string, number>;
  readonly repeated: number;
  readonly dropped: number;
  readonly kept: number;
}

class Run {
  readonly book = new WindowBook();
  readonly log: { key: string; version: number; gone: boolean; read: boolean }[] = [];
  readonly visible = new Map<string, number>();
  repeated = 0;
  dropped = 0;
  readonly #wal: WalEntry[] = [];
  readonly #transactions: Transaction[] = [];
  readonly #versions = new Map<string, number>();
  readonly #workers: Worker[] = [KEYS.slice(0, 2), KEYS.slice(2)].map((keys) => ({
    keys,
    phase: 'before',
    window: 0,
    rows: new Map(),
  }));
  #streamed = 0;
  #active = false;
  #nextXid = FIRST_XID;
  #nextWindow = 1;
  /** Transactions that held locks when the stream began to be watched. */
  #barrier: Transaction[] = [];

  constructor(
    private readonly random: Random,
    private readonly mistake: Mistake | undefined,
  ) {}

  play(): void {
    for (const key of KEYS) if (this.random.chance(0.7)) this.#commitAtOnce(key);
    for (let step = 0; step < 150 || !this.#over(); step++) this.#step(step < 150);
  }

  #over(): boolean {
    return (
      this.#streamed === this.#wal.length &&
      this.#workers.every(({ phase }) => phase === 'done') &&
      this.#running().length === 0
    );
  }

  #step(writing: boolean): void {
    switch (this.random.below(6)) {
      case 0:
        if (writing) this.#begin();
        return;
      case 1:
        return this.#write(writing);
      case 2:
        return this.#advance();
      case 3:
      case 4:
        return this.#stream();
      default:
        return this.#work(this.random.pick(this.#workers));
    }
  }

  #running(): Transaction[] {
    return this.#transactions.filter(({ phase }) => phase !== 'ended');
  }

  #commitAtOnce(key: string): void {
    this.#versions.set(key, 1);
    this.visible.set(key, 1);
    this.log.push({ key, version: 1, gone: false, read: true });
  }

  #begin(): void {
    if (this.#running().length < 3)
      this.#transactions.push({ xid: this.#nextXid++, writes: new Map(), phase: 'running' });
  }

  #write(writing: boolean): void {
    const transaction = this.#transactions.find(({ phase }) => phase === 'running');
    if (transaction === undefined || !writing) return;
    const key = this.random.pick(KEYS);
    if (this.#running().some((other) => other !== transaction && other.writes.has(key))) return;
    const version = (this.#versions.get(key) ?? 0) + 1;
    this.#versions.set(key, version);
    transaction.writes.set(key, this.random.chance(0.3) ? -version : version);
  }

  #advance(): void {
    const running = this.#running();
    if (running.length === 0) return;
    const transaction = this.random.pick(running);
    if (transaction.phase === 'running') {
      if (this.random.chance(0.1)) transaction.phase = 'ended';
      else {
        transaction.phase = 'committing';
        this.#wal.push({ commit: transaction });
      }
      return;
    }
    transaction.phase = 'ended';
    for (const [key, version] of transaction.writes) {
      if (version! < 0) this.visible.delete(key);
      else this.visible.set(key, version!);
    }
  }

  #stream(): void {
    const entry = this.#wal[this.#streamed];
    if (entry === undefined) return;
    this.#streamed += 1;
    if ('commit' in entry) this.#told(entry.commit);
    else if ('low' in entry) this.book.low(entry.low);
    else this.#high(entry.high);
  }

  #told({ xid, writes }: Transaction): void {
    if (this.#active) this.book.begin(Number(BigInt.asUintN(32, xid)));
    for (const [key, version] of writes) {
      if (this.#active && this.book.watches('t')) this.book.changed('t', key);
      this.log.push({ key, version: Math.abs(version!), gone: version! < 0, read: false });
    }
  }

  #high(id: number): void {
    const worker = this.#workers.find(({ window }) => window === id)!;
    const verdict = this.book.high(id)!;
    if (verdict.kind !== 'publish' && this.mistake !== 'publish what is behind') {
      this.repeated += 1;
      worker.phase = 'before';
      return;
    }
    const changed = verdict.kind === 'publish' ? verdict.changed : new Set<string>();
    for (const [key, version] of worker.rows) {
      if (changed.has(key) && this.mistake !== 'publish what changed') this.dropped += 1;
      else this.log.push({ key, version, gone: false, read: true });
    }
    worker.phase = 'done';
  }

  #work(worker: Worker): void {
    if (!this.#active) {
      this.#active = true;
      this.#barrier = this.#running();
      return;
    }
    switch (worker.phase) {
      case 'before':
        if (this.mistake !== 'read before writers ended' && this.#barrier.some(({ phase }) => phase !== 'ended'))
          return;
        worker.window = this.#nextWindow++;
        this.book.open(worker.window, 't');
        this.#wal.push({ low: worker.window });
        worker.phase = 'open';
        return;
      case 'open':
        worker.rows = new Map([...this.visible].filter(([key]) => worker.keys.includes(key)));
        this.book.read(worker.window, parseTxSnapshot(this.#snapshot()));
        worker.phase = 'read';
        return;
      case 'read':
        this.#wal.push({ high: worker.window });
        worker.phase = 'waiting';
        return;
      default:
    }
  }

  #snapshot(): string {
    const running = this.#running().map(({ xid }) => xid);
    const ended = this.#transactions.filter(({ phase }) => phase === 'ended').map(({ xid }) => xid);
    const xmax = ended.reduce((max, xid) => (xid >= max ? xid + 1n : max), FIRST_XID);
    const below = running.filter((xid) => xid < xmax);
    return `${below.reduce((min, xid) => (xid < min ? xid : min), xmax)}:${xmax}:${below.join(',')}`;
  }
}
