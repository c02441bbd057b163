import type { Clock } from '@headwater/core';
import { formatLsn, parseLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { TxSnapshot } from '../snapshot/tx-snapshot.js';
import { pgoutput } from './wal-bytes.testing.js';
import type { WalRow, WalTable } from './wal-bytes.testing.js';

export const TABLES: readonly WalTable[] = [
  {
    oid: 16_401,
    name: 'a',
    replicaIdentity: 'd',
    columns: [
      { name: 'id', typeOid: 23, key: true },
      { name: 'v', typeOid: 25, key: false },
    ],
  },
  {
    oid: 16_402,
    name: 'b',
    replicaIdentity: 'd',
    columns: [
      { name: 'id', typeOid: 23, key: true },
      { name: 'v', typeOid: 25, key: false },
      { name: 'big', typeOid: 25, key: false },
    ],
  },
  {
    oid: 16_403,
    name: 'c',
    replicaIdentity: 'f',
    columns: [
      { name: 'id', typeOid: 23, key: true },
      { name: 'v', typeOid: 25, key: false },
      { name: 'big', typeOid: 25, key: false },
    ],
  },
];
export const MESSAGES = 'messages';

/** One statement, before it has a place in the WAL. */
export type Change =
  | { readonly do: 'put'; readonly table: string; readonly id: string; readonly v: string; readonly big?: string }
  | { readonly do: 'rename'; readonly table: string; readonly id: string; readonly to: string }
  | { readonly do: 'delete'; readonly table: string; readonly id: string }
  | { readonly do: 'emit'; readonly prefix: string; readonly key: string; readonly value: string };

/** What a record must look like: made from the statements, not from the WAL. */
export interface Expected {
  readonly topic: string;
  readonly key: string;
  readonly value: string | null;
  readonly op: string;
  readonly tx: string;
  readonly seq: number;
}

export interface WalEntry {
  /** Where the record that makes it count begins: the commit record, or the message. What lies below a slot's confirmed LSN is not sent. */
  readonly at: Lsn;
  /** Where that record ends, and the next one may begin. */
  readonly end: Lsn;
  readonly xid: number;
  /** Without begin and commit; tables by oid, in front of their first row of a session. */
  readonly messages: readonly { readonly table?: WalTable; readonly bytes: Buffer }[];
  readonly transactional: boolean;
  readonly expected: readonly Expected[];
}

/** What a transaction found in the rows that it changed, by table and key. */
type Before = Map<string, { readonly table: string; readonly id: string; readonly row: WalRow | undefined }>;

/**
 * The tables of one database and its WAL. As in Postgres a transaction is in the WAL before anybody sees it, and until then its rows are locked:
 * whoever wants to change one of them waits for that.
 */
export class SimulatedDatabase {
  readonly wal: WalEntry[] = [];
  /** As the WAL has them; a read may not see all of it yet. */
  readonly rows = new Map<string, Map<string, WalRow>>(TABLES.map(({ name }) => [name, new Map()]));
  /** Called when something was written. */
  readonly onWrite = new Set<() => void>();
  readonly #unseen = new Map<number, Before>();
  #insertLsn = parseLsn('0/1000000');
  #xid = 700;

  constructor(private readonly clock: Clock) {}

  get lsn(): Lsn {
    return this.#insertLsn;
  }

  /** WAL that no slot decodes to anything. */
  write(bytes: number): void {
    this.#insertLsn = (this.#insertLsn + BigInt(bytes)) as Lsn;
    for (const written of this.onWrite) written();
  }

  /** Commits transactions in this order; their commit records stand side by side, with nothing in between. `unseenMs`: until they are visible. */
  commit(transactions: readonly (readonly Change[])[], unseenMs = 0): void {
    this.write(64 * transactions.flat().length);
    for (const changes of transactions) {
      const at = this.#insertLsn;
      this.write(48);
      const xid = ++this.#xid;
      const before: Before = new Map();
      const written = changes.map((change) => this.#change(change, at, before));
      const expected = written.flatMap((of) => of.expected).map((of, seq) => ({ ...of, tx: String(xid), seq }));
      const messages = written.map(({ table, bytes }) => (table === undefined ? { bytes } : { table, bytes }));
      this.wal.push({ at, end: this.#insertLsn, xid, messages, transactional: true, expected });
      if (unseenMs === 0) continue;
      this.#unseen.set(xid, before);
      void this.clock.wait(unseenMs).then(() => this.#unseen.delete(xid));
    }
  }

  /** A message of the outbox outside of any transaction. */
  emit(prefix: string, key: string, value: string): void {
    const lsn = this.message(prefix, JSON.stringify({ topic: MESSAGES, key, value }));
    const entry = this.wal.at(-1)!;
    const tx = `message-${formatLsn(lsn)}`;
    if (prefix === 'headwater')
      this.wal[this.wal.length - 1] = { ...entry, expected: [{ topic: MESSAGES, key, value, op: '', tx, seq: 0 }] };
  }

  /** A logical message that belongs to no transaction. */
  message(prefix: string, content: string): Lsn {
    const at = this.#insertLsn;
    this.write(80);
    const end = this.#insertLsn;
    const bytes = pgoutput.message(false, end, prefix, Buffer.from(content));
    this.wal.push({ at, end, xid: 0, messages: [{ bytes }], transactional: false, expected: [] });
    return end;
  }

  /** The rows of a table that a read would see now. */
  visible(table: string): Map<string, WalRow> {
    const rows = new Map(this.rows.get(table)!);
    for (const before of this.#unseen.values()) {
      for (const of of before.values()) {
        if (of.table !== table) continue;
        if (of.row === undefined) rows.delete(of.id);
        else rows.set(of.id, of.row);
      }
    }
    return rows;
  }

  get snapshot(): TxSnapshot {
    const xmax = BigInt(this.#xid + 1);
    const running = new Set(this.#unseen.keys());
    return { xmin: BigInt(Math.min(...running, Number(xmax))), xmax, running };
  }

  /** The transactions that hold locks on a table. */
  writers(table: string): readonly number[] {
    return [...this.#unseen].flatMap(([xid, before]) =>
      [...before.values()].some((of) => of.table === table) ? [xid] : [],
    );
  }

  get micros(): bigint {
    return BigInt(this.clock.now()) * 1_000n;
  }

  /** Waits for who has the row, and takes note of what is there. */
  #lock(table: string, id: string, before: Before): void {
    const row = `${table}/${id}`;
    for (const [xid, other] of this.#unseen) if (other.has(row)) this.#unseen.delete(xid);
    if (!before.has(row)) before.set(row, { table, id, row: this.rows.get(table)!.get(id) });
  }

  #change(
    change: Change,
    at: Lsn,
    locked: Before,
  ): { readonly table?: WalTable; readonly bytes: Buffer; readonly expected: readonly Omit<Expected, 'tx' | 'seq'>[] } {
    if (change.do === 'emit') {
      const { prefix, key, value } = change;
      const bytes = pgoutput.message(true, at, prefix, Buffer.from(JSON.stringify({ topic: MESSAGES, key, value })));
      return { bytes, expected: prefix === 'headwater' ? [{ topic: MESSAGES, key, value, op: '' }] : [] };
    }
    const table = TABLES.find(({ name }) => name === change.table)!;
    this.#lock(table.name, change.id, locked);
    if (change.do === 'rename') this.#lock(table.name, change.to, locked);
    const rows = this.rows.get(table.name)!;
    const before = rows.get(change.id);
    const put = (op: string, id: string, row: WalRow) => ({
      topic: table.name,
      key: id,
      value: jsonOf(table, row),
      op,
    });
    const gone = (id: string) => ({ topic: table.name, key: id, value: null, op: 'd' });
    const oldRow = (row: WalRow): WalRow =>
      table.replicaIdentity === 'f' ? row : row.map((value, i) => (table.columns[i]!.key ? value : null));
    const kind = table.replicaIdentity === 'f' ? 'O' : 'K';
    if (change.do === 'delete') {
      rows.delete(change.id);
      return { table, bytes: pgoutput.delete(table.oid, kind, oldRow(before!)), expected: [gone(change.id)] };
    }
    if (change.do === 'rename') {
      const row: WalRow = [change.to, ...before!.slice(1)];
      rows.delete(change.id);
      rows.set(change.to, row);
      const sent = row.map((value, i) => (table.columns[i]!.name === 'big' ? undefined : value));
      // An unchanged large value of a row with another key can only come from the whole old row.
      const bytes = pgoutput.update(table.oid, { kind, row: oldRow(before!) }, kind === 'O' ? sent : row);
      return { table, bytes, expected: [gone(change.id), put('u', change.to, row)] };
    }
    const large = table.columns.length === 3 ? [change.big ?? before?.[2] ?? null] : [];
    const row: WalRow = [change.id, change.v, ...large];
    rows.set(change.id, row);
    if (before === undefined)
      return { table, bytes: pgoutput.insert(table.oid, row), expected: [put('c', change.id, row)] };
    const sent = row.map((value, i) => (i === 2 && change.big === undefined ? undefined : value));
    const old = kind === 'O' ? ({ kind, row: before } as const) : undefined;
    return { table, bytes: pgoutput.update(table.oid, old, sent), expected: [put('u', change.id, row)] };
  }
}

/** Keys are numbers, the rest is text without anything to escape. */
export function jsonOf(table: WalTable, row: WalRow): string {
  const fields = table.columns.map(({ name, typeOid }, i) => {
    const value = row[i];
    return `"${name}":${value == null ? 'null' : typeOid === 23 ? value : `"${value}"`}`;
  });
  return `{${fields.join(',')}}`;
}
