import { createHash, randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Database, errorCode, type Sql } from '@headwater/core';
import { awaitProjection, projectionTable } from '@headwater/projections';
import { Idempotency } from '../http/idempotency.js';
import { Problem } from '../http/problem.js';
import type { OpenAccountBody } from './accounts.dto.js';
import { Balances } from './balances.projection.js';

export interface AccountView {
  readonly accountId: string;
  readonly owner: string;
  readonly currency: string;
  readonly postedCents: number;
  readonly pendingCents: number;
  readonly availableCents: number;
  readonly version: number;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const LSN = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i;

/** Opens accounts, books deposits and withdrawals in the journal, and reads balances from the read model. */
@Injectable()
export class AccountsService {
  constructor(
    private readonly database: Database,
    private readonly idempotency: Idempotency,
  ) {}

  open(body: OpenAccountBody, idempotencyKey: string | undefined) {
    return this.idempotency.once(idempotencyKey && `accounts/${idempotencyKey}`, body, async (sql) => {
      const accountId = randomUUID();
      await sql.query(
        'INSERT INTO bank.accounts (id, owner, currency, overdraft_limit_cents) VALUES ($1, $2, $3, $4)',
        [accountId, body.owner, body.currency, body.overdraftLimitCents ?? 0],
      );
      return { accountId };
    });
  }

  /** Moves money between the account and the cash account of its currency: `amountCents` > 0 in, < 0 out. */
  book(kind: 'deposit' | 'withdrawal', accountId: string, amountCents: number, idempotencyKey: string | undefined) {
    const key = idempotencyKey && `${kind}/${accountId}/${idempotencyKey}`;
    return this.idempotency.once(key, { kind, accountId, amountCents }, async (sql) => {
      const currency = await this.#currencyOf(sql, accountId);
      const cash = await cashAccount(sql, currency);
      const entryId = randomUUID();
      const signed = kind === 'deposit' ? amountCents : -amountCents;
      // Cash first, always: every booking takes its locks in one order.
      await post(sql, { journalId: entryId, accountId: cash, amountCents: -signed, currency, kind });
      await post(sql, { journalId: entryId, accountId, amountCents: signed, currency, kind });
      return { entryId };
    });
  }

  async view(accountId: string, token: string | undefined): Promise<AccountView> {
    if (!UUID.test(accountId)) throw unknownAccount(accountId);
    if (token !== undefined) {
      if (!LSN.test(token)) throw new Problem(400, 'invalid-token', 'token must be the one an earlier answer gave.');
      await awaitProjection(this.database, Balances, token);
    }
    const { rows } = await this.database.query<BalanceRow>(
      `SELECT * FROM ${projectionTable(Balances)} WHERE account_id = $1`,
      [accountId],
    );
    if (rows[0] === undefined) throw unknownAccount(accountId);
    return toView(rows[0]);
  }

  async list(limit: number): Promise<AccountView[]> {
    const { rows } = await this.database.query<BalanceRow>(
      `SELECT * FROM ${projectionTable(Balances)} WHERE kind = 'customer' ORDER BY version DESC, account_id LIMIT $1`,
      [limit],
    );
    return rows.map(toView);
  }

  async statement(
    accountId: string,
    options: { asOf?: string | undefined; limit: number; cursor?: string | undefined },
  ) {
    if (!UUID.test(accountId)) throw unknownAccount(accountId);
    const asOf = options.asOf === undefined ? new Date() : new Date(options.asOf);
    if (Number.isNaN(asOf.getTime()))
      throw new Problem(400, 'invalid-as-of', 'asOf must be a time, as 2026-01-31T12:00:00Z.');
    const cursor = options.cursor ?? '9223372036854775807';
    if (!/^\d{1,19}$/.test(cursor))
      throw new Problem(400, 'invalid-cursor', 'cursor must be the one an earlier page gave.');
    const currency = await this.#currencyOf(this.database, accountId);
    const balance = await this.database.query<{ sum: string }>(
      'SELECT coalesce(sum(amount_cents), 0)::text AS sum FROM bank.entries WHERE account_id = $1 AND at <= $2',
      [accountId, asOf],
    );
    const { rows } = await this.database.query<{
      id: string;
      journal_id: string;
      amount_cents: string;
      kind: string;
      reference: string | null;
      at: Date;
    }>(
      `SELECT id::text, journal_id, amount_cents::text, kind, reference, at FROM bank.entries
       WHERE account_id = $1 AND at <= $2 AND id < $3::bigint ORDER BY id DESC LIMIT $4`,
      [accountId, asOf, cursor, options.limit],
    );
    return {
      accountId,
      currency,
      asOf: asOf.toISOString(),
      balanceCents: Number(balance.rows[0]!.sum),
      entries: rows.map((entry) => ({
        entryId: entry.journal_id,
        amountCents: Number(entry.amount_cents),
        kind: entry.kind,
        reference: entry.reference,
        at: entry.at.toISOString(),
      })),
      ...(rows.length === options.limit ? { cursor: rows.at(-1)!.id } : {}),
    };
  }

  async #currencyOf(sql: Sql, accountId: string): Promise<string> {
    if (!UUID.test(accountId)) throw unknownAccount(accountId);
    const { rows } = await sql.query<{ currency: string }>(
      `SELECT currency FROM bank.accounts WHERE id = $1 AND kind = 'customer'`,
      [accountId],
    );
    if (rows[0] === undefined) throw unknownAccount(accountId);
    return rows[0].currency;
  }
}

interface BalanceRow {
  readonly account_id: string;
  readonly owner: string;
  readonly currency: string;
  readonly posted_cents: string;
  readonly pending_cents: string;
  readonly available_cents: string;
  readonly version: string;
}

export interface Posting {
  readonly journalId: string;
  readonly accountId: string;
  readonly amountCents: number | bigint;
  readonly currency: string;
  readonly kind: string;
  readonly reference?: string | null;
}

/** One side of a journal entry, and the balance with it. The limit is the table's own constraint. */
export async function post(sql: Sql, posting: Posting): Promise<void> {
  try {
    await sql.query('UPDATE bank.accounts SET posted_cents = posted_cents + $2, version = version + 1 WHERE id = $1', [
      posting.accountId,
      posting.amountCents,
    ]);
  } catch (error) {
    if (errorCode(error) === CHECK_VIOLATION)
      throw new Problem(422, 'insufficient-funds', 'The account has not enough available funds.');
    if (errorCode(error) === OUT_OF_RANGE)
      throw new Problem(422, 'amount-too-large', 'The balance would leave the range of 64 bits.');
    throw error;
  }
  await sql.query(
    'INSERT INTO bank.entries (journal_id, account_id, amount_cents, currency, kind, reference) VALUES ($1, $2, $3, $4, $5, $6)',
    [
      posting.journalId,
      posting.accountId,
      posting.amountCents,
      posting.currency,
      posting.kind,
      posting.reference ?? null,
    ],
  );
}

const CHECK_VIOLATION = '23514';
const OUT_OF_RANGE = '22003';

/** The account that stands for cash in a currency; its id follows from the currency. */
async function cashAccount(sql: Sql, currency: string): Promise<string> {
  const hash = createHash('sha256').update(`cash:${currency}`).digest('hex');
  const id = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-5${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`;
  await sql.query(
    `INSERT INTO bank.accounts (id, owner, currency, kind) VALUES ($1, $2, $3, 'system') ON CONFLICT DO NOTHING`,
    [id, `cash ${currency}`, currency],
  );
  return id;
}

function toView(row: BalanceRow): AccountView {
  return {
    accountId: row.account_id,
    owner: row.owner,
    currency: row.currency,
    postedCents: Number(row.posted_cents),
    pendingCents: Number(row.pending_cents),
    availableCents: Number(row.available_cents),
    version: Number(row.version),
  };
}

export function unknownAccount(accountId: string): Problem {
  return new Problem(404, 'unknown-account', `There is no account ${accountId}.`);
}
