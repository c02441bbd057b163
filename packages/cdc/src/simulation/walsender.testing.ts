import type { Clock } from '@headwater/core';
import type { Random } from '@headwater/testing';
import { maxLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { SimulatedDatabase, WalEntry } from './database.testing.js';
import { frame, pgoutput } from './wal-bytes.testing.js';

export interface SimulatedSlot {
  readonly name: string;
  confirmed: Lsn;
  walStatus: string;
  walsender: Walsender | undefined;
}

/** The client's end of a replication connection. */
export interface WireEnd {
  data(bytes: Buffer): void;
  closed(error: Error): void;
}

export interface WalsenderOptions {
  readonly database: SimulatedDatabase;
  readonly slot: SimulatedSlot;
  /** Of the server. */
  readonly clock: Clock;
  /** Of the client's process: what is on its way waits while that is stopped. */
  readonly clientClock: Clock;
  readonly random: Random;
  readonly pid: number;
  /** Asked once per delivery. */
  readonly fate: () => 'deliver' | 'cut' | 'silent';
  /** What the client says is durable, as it arrives. */
  readonly flushed: (flush: Lsn) => void;
  readonly saw: (what: string) => void;
  /** A bug of the walsender's client may start elsewhere. */
  readonly from: Lsn;
  /** As if the client did not see that a transaction is open. */
  readonly keepalivesFirst: boolean;
}

export const WAL_SENDER_TIMEOUT_MS = 6_000;
const KEEPALIVE_MS = 2_000;
/** What the kernel takes of a sender that nobody reads. */
const SOCKET_BYTES = 4_000;

/**
 * One walsender: decodes from where the slot is confirmed, in commit order, whole transactions; sends frames in pieces of any size; ends when its
 * client is gone, or is silent for too long. The slot is busy until then.
 */
export class Walsender {
  readonly pid: number;
  readonly #options: WalsenderOptions;
  readonly #over = new AbortController();
  readonly #known = new Set<number>();
  #client: WireEnd | undefined;
  #next = 0;
  /** How far the WAL has been read. */
  #sent: Lsn;
  #out: Buffer[] = [];
  #outBytes = 0;
  #delivering = false;
  #paused = false;
  #silent = false;
  #heardAtMs: number;

  constructor(options: WalsenderOptions) {
    this.#options = options;
    this.pid = options.pid;
    this.#sent = options.from;
    this.#heardAtMs = options.clock.elapsed();
    void this.#guard();
  }

  start(client: WireEnd): void {
    this.#client = client;
    void this.#work();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    void this.#deliver();
  }

  /** A status update of the client. */
  status(flush: Lsn, replyRequested: boolean): void {
    const { clock, slot, flushed, database } = this.#options;
    if (this.#over.signal.aborted || this.#silent) return;
    this.#heardAtMs = clock.elapsed();
    flushed(flush);
    // As Postgres: anything is believed, also what was never sent.
    if (flush > slot.confirmed) slot.confirmed = flush > database.lsn ? database.lsn : flush;
    if (replyRequested) this.#push(frame.keepalive(this.#sent, false));
  }

  /** The client's socket is closed, and the server hears of it. */
  hangUp(): void {
    this.#end();
  }

  /** The server ends the connection. */
  kill(): void {
    if (this.#over.signal.aborted) return;
    const client = this.#client;
    this.#end();
    // The client hears of it when it runs.
    void this.#options.clientClock.wait(0).then(() => client?.closed(reset()));
  }

  #end(): void {
    this.#over.abort();
    this.#client = undefined;
    if (this.#options.slot.walsender === this) this.#options.slot.walsender = undefined;
  }

  async #work(): Promise<void> {
    const { database, clock, random } = this.#options;
    const { signal } = this.#over;
    let idleSinceMs = clock.elapsed();
    while (!signal.aborted) {
      const entry = database.wal[this.#next];
      if (entry === undefined || this.#outBytes > SOCKET_BYTES) {
        await this.#rest(entry === undefined ? KEEPALIVE_MS : 5);
        if (entry !== undefined || clock.elapsed() - idleSinceMs < KEEPALIVE_MS || signal.aborted) continue;
        this.#sent = maxLsn(database.lsn, this.#sent);
        this.#push(frame.keepalive(this.#sent, true));
        idleSinceMs = clock.elapsed();
        continue;
      }
      idleSinceMs = clock.elapsed();
      this.#next += 1;
      // As SnapBuildXactNeedsSkip: what begins below where the slot is confirmed is passed by.
      if (entry.at >= this.#options.from) this.#send(entry);
      this.#sent = maxLsn(entry.end, this.#sent);
      if (random.chance(0.2)) this.#push(frame.keepalive(this.#sent, random.chance(0.3)));
    }
  }

  /** Until something is written. */
  async #rest(ms: number): Promise<void> {
    const { database, clock } = this.#options;
    const over = new AbortController();
    const wake = () => over.abort(WOKEN);
    database.onWrite.add(wake);
    this.#over.signal.addEventListener('abort', wake);
    await clock.wait(ms, over.signal);
    this.#over.signal.removeEventListener('abort', wake);
    database.onWrite.delete(wake);
  }

  #send({ at, end, xid, messages, transactional }: WalEntry): void {
    const { database, random, saw, keepalivesFirst } = this.#options;
    const lsn = () => (transactional ? at : end);
    if (transactional && keepalivesFirst) this.#push(frame.keepalive(database.lsn, false));
    if (transactional) this.#push(frame.data(lsn(), pgoutput.begin(at, database.micros, xid)));
    for (const { table, bytes } of messages) {
      if (table !== undefined && !this.#known.has(table.oid)) {
        this.#known.add(table.oid);
        this.#push(frame.data(0n as Lsn, pgoutput.relation(table)));
      }
      this.#push(frame.data(lsn(), bytes));
      if (transactional && random.chance(0.1)) {
        saw('keepalive inside a transaction');
        this.#push(frame.keepalive(database.lsn, random.chance(0.5)));
      }
    }
    if (transactional) this.#push(frame.data(lsn(), pgoutput.commit(at, end, database.micros)));
  }

  #push(bytes: Buffer): void {
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    void this.#deliver();
  }

  async #deliver(): Promise<void> {
    if (this.#delivering) return;
    this.#delivering = true;
    const { clientClock, random, fate, saw } = this.#options;
    while (this.#outBytes > 0 && !this.#paused && !this.#silent && !this.#over.signal.aborted) {
      await clientClock.wait(random.pick([0, 0, 1, 5]));
      const what = fate();
      if (what === 'silent') this.#silent = true;
      const all = Buffer.concat(this.#out);
      const count = random.chance(0.5) ? all.length : 1 + random.below(all.length);
      if (count < all.length) saw('frame cut by a read');
      this.#out = count < all.length ? [all.subarray(count)] : [];
      this.#outBytes = all.length - count;
      if (this.#over.signal.aborted || this.#silent) break;
      this.#client?.data(Buffer.from(all.subarray(0, count)));
      if (what !== 'cut') continue;
      if (count < all.length) saw('walsender lost in mid-frame');
      this.kill();
    }
    this.#delivering = false;
  }

  /** Ends a walsender whose client says nothing. */
  async #guard(): Promise<void> {
    const { clock, saw } = this.#options;
    const { signal } = this.#over;
    while (!signal.aborted) {
      await clock.wait(WAL_SENDER_TIMEOUT_MS / 4, signal);
      if (signal.aborted || clock.elapsed() - this.#heardAtMs < WAL_SENDER_TIMEOUT_MS) continue;
      saw('walsender timed out');
      this.kill();
    }
  }
}

/** A reason of its own: the default one is an error with a stack. */
const WOKEN = 'woken';

function reset(): Error {
  return Object.assign(new Error('connection reset'), { code: 'ECONNRESET' });
}
