import type { Database } from './database.js';
import { OUTBOX_DDL } from './outbox-schema.js';

const CORE_DDL = [
  `CREATE SCHEMA IF NOT EXISTS headwater`,
  // Progress of every apply consumer, moved by compare-and-set in the transaction of its rows (A1).
  `CREATE TABLE IF NOT EXISTS headwater.offsets (
     consumer text NOT NULL, topic text NOT NULL, partition int NOT NULL,
     next_offset bigint NOT NULL, owner_epoch bigint NOT NULL,
     PRIMARY KEY (consumer, topic, partition))`,
  // Records set aside, per key in order, for an operator.
  `CREATE TABLE IF NOT EXISTS headwater.parked (
     consumer text NOT NULL, topic text NOT NULL, partition int NOT NULL, log_offset bigint NOT NULL,
     record_key bytea, record_value bytea, headers jsonb NOT NULL, code text NOT NULL, reason text NOT NULL,
     parked_at timestamptz NOT NULL DEFAULT now(),
     PRIMARY KEY (consumer, topic, partition, log_offset))`,
  // Up to which LSN a consumer has applied everything captured: what a token waits for.
  `CREATE TABLE IF NOT EXISTS headwater.frontier (consumer text PRIMARY KEY, lsn pg_lsn NOT NULL)`,
  ...OUTBOX_DDL,
];

/** Creates what is missing of Headwater's own tables, and `ddl` after it. Safe to run from many processes at once. */
export async function ensureSchema(database: Database, ddl: readonly string[] = []): Promise<void> {
  await database.transaction(async (sql) => {
    // CREATE … IF NOT EXISTS races between processes; the lock makes them take turns.
    await sql.query(`SELECT pg_advisory_xact_lock(hashtext('headwater.schema'))`);
    for (const statement of [...CORE_DDL, ...ddl]) await sql.query(statement);
  });
}

/** A quoted identifier; `schema.table` is quoted part by part. */
export function quoteName(name: string): string {
  return name
    .split('.')
    .map((part) => `"${part.replaceAll('"', '""')}"`)
    .join('.');
}
