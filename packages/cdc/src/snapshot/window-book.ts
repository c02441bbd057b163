import { later, sees } from './tx-snapshot.js';
import type { TxSnapshot } from './tx-snapshot.js';

/**
 * What is to become of a read when the stream reaches its high watermark. `publish`: all rows but those whose key changed between the marks.
 * `behind`: the read does not see a transaction that the stream had already told (N2). `disturbed`: TRUNCATE or a new shape between the marks.
 */
export type Verdict =
  | { readonly kind: 'publish'; readonly changed: ReadonlySet<string> }
  | { readonly kind: 'behind' }
  | { readonly kind: 'disturbed' };

interface OpenWindow {
  readonly table: string;
  /** The latest snapshot known when the window was opened: its own is not older. */
  readonly floor: TxSnapshot | undefined;
  /** How many transactions the stream had told at the low watermark; undefined before it. */
  told: number | undefined;
  snapshot: TxSnapshot | undefined;
  disturbed: boolean;
  readonly changed: Set<string>;
}

/**
 * Book-keeping of the windows between low and high watermarks of one connection, in the order of the stream. Pure. Memory: the keys changed inside open
 * windows, and the transactions told that a read still to come may not see.
 */
export class WindowBook {
  readonly #open = new Map<number, OpenWindow>();
  /** Transactions told, in order, that not every read sees: xid to its number. */
  readonly #told = new Map<number, number>();
  #count = 0;
  #latest: TxSnapshot | undefined;
  #floor: TxSnapshot | undefined;

  /** Called before the low watermark is written. */
  open(id: number, table: string): void {
    this.#open.set(id, {
      table,
      floor: this.#latest,
      told: undefined,
      snapshot: undefined,
      disturbed: false,
      changed: new Set(),
    });
  }

  close(id: number): void {
    if (this.#open.delete(id)) this.#settle();
  }

  /** A snapshot that was taken while the stream was being watched. */
  know(snapshot: TxSnapshot): void {
    this.#latest = this.#latest === undefined ? snapshot : later(snapshot, this.#latest);
    this.#settle();
  }

  begin(xid: number): void {
    this.#count += 1;
    if (this.#floor === undefined || !sees(this.#floor, xid)) this.#told.set(xid, this.#count);
  }

  watches(table: string): boolean {
    for (const window of this.#open.values()) if (window.table === table && window.told !== undefined) return true;
    return false;
  }

  changed(table: string, key: string): void {
    for (const window of this.#inside(table)) window.changed.add(key);
  }

  disturbed(table: string): void {
    for (const window of this.#inside(table)) window.disturbed = true;
  }

  /** False: no such window is open. */
  low(id: number): boolean {
    const window = this.#open.get(id);
    if (window !== undefined) window.told = this.#count;
    return window !== undefined;
  }

  /** The read between the marks was made with this snapshot. Called before the high watermark is written. */
  read(id: number, snapshot: TxSnapshot): void {
    const window = this.#open.get(id);
    if (window !== undefined) window.snapshot = snapshot;
    this.know(snapshot);
  }

  /** Closes the window. Undefined: it is not open any more. */
  high(id: number): Verdict | undefined {
    const window = this.#open.get(id);
    if (window === undefined || window.told === undefined) return undefined;
    const verdict = this.#judge(window, window.told);
    this.close(id);
    return verdict;
  }

  /** Transactions kept, for a test of the bound. */
  get kept(): number {
    return this.#told.size;
  }

  #judge(window: OpenWindow, toldAtLow: number): Verdict {
    if (window.disturbed) return { kind: 'disturbed' };
    const { snapshot } = window;
    if (snapshot !== undefined) {
      for (const [xid, number] of this.#told) {
        if (number <= toldAtLow && !sees(snapshot, xid)) return { kind: 'behind' };
      }
    }
    return { kind: 'publish', changed: window.changed };
  }

  *#inside(table: string): Iterable<OpenWindow> {
    for (const window of this.#open.values()) {
      if (window.table === table && window.told !== undefined) yield window;
    }
  }

  /** Forgets the transactions that every open and every later read sees. */
  #settle(): void {
    let floor = this.#latest;
    // Map keeps the order of opening: the first open window has the oldest floor.
    for (const window of this.#open.values()) {
      floor = window.floor;
      break;
    }
    if (floor === undefined || floor === this.#floor) return;
    this.#floor = floor;
    for (const xid of this.#told.keys()) if (sees(floor, xid)) this.#told.delete(xid);
  }
}
