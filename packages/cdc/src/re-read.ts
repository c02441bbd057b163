import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import type { Tuple } from './pgoutput.js';
import { textRows } from './postgres-session.js';
import { parseTxSnapshot, sees } from './snapshot/tx-snapshot.js';

/** How long to wait for a transaction that is in the WAL and not visible yet; longer each time. */
const PAUSES_MS = [1, 2, 5, 20, 100];

/**
 * Reads a row as it is now, or later, but never as it was before the transaction that asks: Postgres writes a commit into the WAL before it lets
 * anybody see it, and what was there before would take the row back. Waits until the transaction is visible; with synchronous replication that
 * is when its standbys have answered. Undefined: the row is gone. `select`: its columns, FROM and WHERE, without the SELECT. `xid` undefined: whoever asks knows it
 * to be visible.
 */
export async function readPresentRow(
  sql: Client,
  clock: Clock,
  query: { readonly select: string; readonly values: readonly unknown[]; readonly xid: number | undefined },
): Promise<Tuple | undefined> {
  const text = `SELECT s.snapshot, r.* FROM (SELECT pg_current_snapshot()::text AS snapshot) s LEFT JOIN (SELECT true, ${query.select}) r ON true`;
  for (let attempt = 0; ; attempt++) {
    const [row] = await textRows(sql, text, query.values);
    const [snapshot, found, ...columns] = row!;
    if (query.xid === undefined || sees(parseTxSnapshot(snapshot!), query.xid))
      return found === null ? undefined : columns;
    await clock.wait(PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)]!);
  }
}
