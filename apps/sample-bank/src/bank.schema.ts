import { Database } from '@headwater/core';

const DDL = [
  `CREATE SCHEMA IF NOT EXISTS bank`,
  // held_cents: reserved by transfers under way. A system account (cash) stands for the world outside and may go below any limit.
  `CREATE TABLE IF NOT EXISTS bank.accounts (
     id uuid PRIMARY KEY, owner text NOT NULL, currency text NOT NULL, kind text NOT NULL DEFAULT 'customer',
     overdraft_limit_cents bigint NOT NULL DEFAULT 0, posted_cents bigint NOT NULL DEFAULT 0,
     held_cents bigint NOT NULL DEFAULT 0 CHECK (held_cents >= 0), version bigint NOT NULL DEFAULT 0,
     CHECK (kind = 'system' OR posted_cents - held_cents >= -overdraft_limit_cents))`,
  // Double entry: the amounts of one journal_id sum to zero.
  `CREATE TABLE IF NOT EXISTS bank.entries (
     id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, journal_id uuid NOT NULL, account_id uuid NOT NULL REFERENCES bank.accounts,
     amount_cents bigint NOT NULL, currency text NOT NULL, kind text NOT NULL, reference text, at timestamptz NOT NULL DEFAULT clock_timestamp(),
     UNIQUE (journal_id, account_id))`,
  `CREATE INDEX IF NOT EXISTS entries_account ON bank.entries (account_id, id)`,
  `CREATE TABLE IF NOT EXISTS bank.holds (transfer_id uuid PRIMARY KEY, account_id uuid NOT NULL REFERENCES bank.accounts, amount_cents bigint NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS bank.transfers (
     id uuid PRIMARY KEY, from_account_id uuid NOT NULL, to_account_id uuid NOT NULL, amount_cents bigint NOT NULL, currency text NOT NULL,
     reference text, requested_at timestamptz NOT NULL DEFAULT now())`,
  `CREATE TABLE IF NOT EXISTS bank.receipts (transfer_id uuid PRIMARY KEY, sent_at timestamptz NOT NULL DEFAULT now())`,
  `CREATE TABLE IF NOT EXISTS bank.sanctions (word text PRIMARY KEY)`,
  `INSERT INTO bank.sanctions VALUES ('EMBARGO') ON CONFLICT DO NOTHING`,
  // Answers by idempotency key; the token is set by whoever asks first after the commit.
  `CREATE TABLE IF NOT EXISTS bank.requests (
     key text PRIMARY KEY, body_hash text NOT NULL, response jsonb, token text, requested_at timestamptz NOT NULL DEFAULT now())`,
];

/** Creates the bank's tables when they are missing. Safe to run from many processes at once. */
export async function ensureBankSchema(databaseUrl: string): Promise<void> {
  const database = new Database(databaseUrl, { maxConnections: 1 });
  try {
    await database.transaction(async (sql) => {
      await sql.query(`SELECT pg_advisory_xact_lock(hashtext('bank.schema'))`);
      for (const statement of DDL) await sql.query(statement);
    });
  } finally {
    await database.close();
  }
}
