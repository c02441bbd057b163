import type { Sql } from '@headwater/core';

/** How a command ended. `cancelled`: its undo came first; it must never happen. */
export type InboxOutcome = 'ok' | 'rejected' | 'failed' | 'cancelled';

export const INBOX_DDL = `CREATE TABLE IF NOT EXISTS headwater.inbox (
  command_id text PRIMARY KEY, outcome text NOT NULL, handled_at timestamptz NOT NULL DEFAULT now())`;

export async function readInbox(sql: Sql, ids: readonly string[]): Promise<Map<string, InboxOutcome>> {
  const { rows } = await sql.query<{ command_id: string; outcome: InboxOutcome }>(
    'SELECT command_id, outcome FROM headwater.inbox WHERE command_id = ANY($1)',
    [ids],
  );
  return new Map(rows.map((row) => [row.command_id, row.outcome]));
}

/** A second insert of an id fails the transaction: no command can have two effects. */
export async function writeInbox(sql: Sql, entries: ReadonlyMap<string, InboxOutcome>): Promise<void> {
  if (entries.size === 0) return;
  await sql.query('INSERT INTO headwater.inbox (command_id, outcome) SELECT * FROM unnest($1::text[], $2::text[])', [
    [...entries.keys()],
    [...entries.values()],
  ]);
}
