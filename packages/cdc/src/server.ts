import type { Client } from 'pg';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { MadeSlot } from './machine-states.js';
import { quoteName, quoteText, textRows } from './postgres-session.js';
import type { ServerFacts, SlotFacts } from './verify-slot.js';

/** Reads what the server says about itself, the slot and the publication. Changes nothing. */
export async function readServer(
  sql: Client,
  replication: Client,
  names: { readonly slot: string; readonly publication: string },
): Promise<ServerFacts> {
  const [{ rows: identities }, slots, publications, settings] = await Promise.all([
    replication.query<{ systemid: string; timeline: number }>('IDENTIFY_SYSTEM'),
    textRows(
      sql,
      `SELECT confirmed_flush_lsn, to_jsonb(s)->>'wal_status', to_jsonb(s)->>'invalidation_reason', active_pid, plugin
         FROM pg_replication_slots s WHERE slot_name = $1`,
      [names.slot],
    ),
    textRows(sql, 'SELECT oid FROM pg_publication WHERE pubname = $1', [names.publication]),
    textRows(sql, `SELECT current_setting('max_slot_wal_keep_size', true)`),
  ]);
  const identity = identities[0]!;
  return {
    systemId: identity.systemid,
    timeline: Number(identity.timeline),
    timelineSwitch: undefined,
    maxSlotWalKeepSize: settings[0]?.[0] ?? 'unknown',
    slot: slots[0] === undefined ? undefined : slotFacts(slots[0]),
    publication: publications[0] === undefined ? undefined : Number(publications[0][0]),
  };
}

function slotFacts([confirmed, walStatus, reason, pid, plugin]: readonly (string | null)[]): SlotFacts {
  return {
    confirmedFlushLsn: parseLsn(confirmed ?? '0/0'),
    walStatus: walStatus ?? 'unknown',
    invalidationReason: reason ?? null,
    activePid: pid === null || pid === undefined ? null : Number(pid),
    plugin: plugin ?? '',
  };
}

/** Where the history of `timeline` left `from`. A timeline that never was part of it left at 0/0. */
export async function readTimelineSwitch(replication: Client, timeline: number, from: number): Promise<Lsn> {
  if (timeline === 1) return parseLsn('0/0');
  const { rows } = await replication.query<{ content: Buffer | string }>(`TIMELINE_HISTORY ${timeline}`);
  for (const line of String(rows[0]?.content ?? '').split('\n')) {
    const [parent, lsn] = line.trim().split(/\s+/);
    if (Number(parent) === from && lsn !== undefined) return parseLsn(lsn);
  }
  return parseLsn('0/0');
}

/**
 * Creates the slot. Postgres waits for the transactions that are running, so that everything before it is visible. `failover`: a standby that
 * synchronises slots has it too; servers before Postgres 17 and standbys know no such slot, and make an ordinary one.
 */
export async function createSlot(replication: Client, sql: Client, slot: string, failover: boolean): Promise<MadeSlot> {
  const [server] = await textRows(
    sql,
    `SELECT current_setting('server_version_num')::int >= 170000 AND NOT pg_is_in_recovery()`,
  );
  const how = failover && server?.[0] === 't' ? `(SNAPSHOT 'nothing', FAILOVER)` : 'NOEXPORT_SNAPSHOT';
  const { rows } = await replication.query<{ consistent_point: string }>(
    `CREATE_REPLICATION_SLOT ${quoteName(slot)} LOGICAL pgoutput ${how}`,
  );
  return { lsn: parseLsn(rows[0]!.consistent_point) };
}

export async function dropPublicationIfExists(sql: Client, name: string): Promise<void> {
  await sql.query(`DROP PUBLICATION IF EXISTS ${quoteName(name)}`);
}

export async function dropSlotIfExists(sql: Client, slot: string): Promise<void> {
  await sql.query(
    `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${quoteText(slot)}`,
  );
}
