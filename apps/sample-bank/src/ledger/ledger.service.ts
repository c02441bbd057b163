import { Injectable } from '@nestjs/common';
import { Database } from '@headwater/core';

export interface LedgerCheck {
  readonly ok: boolean;
  readonly currencies: Readonly<
    Record<string, { readonly sumCents: number; readonly heldCents: number; readonly accounts: number }>
  >;
  readonly openSagas: number;
  readonly parked: number;
}

// One statement is one snapshot: a consistent cut without stopping any writer.
const CHECK = `
  WITH journal AS (SELECT account_id, sum(amount_cents) AS sum FROM bank.entries GROUP BY account_id),
       held AS (SELECT account_id, sum(amount_cents) AS sum FROM bank.holds GROUP BY account_id)
  SELECT a.currency, sum(coalesce(j.sum, 0))::text AS sum_cents, sum(coalesce(h.sum, 0))::text AS held_cents,
         (count(*) FILTER (WHERE a.kind = 'customer'))::text AS accounts,
         bool_and(a.posted_cents = coalesce(j.sum, 0) AND a.held_cents = coalesce(h.sum, 0)) AS balances_agree,
         bool_and(a.kind = 'system' OR a.posted_cents - a.held_cents >= -a.overdraft_limit_cents) AS within_limits,
         (SELECT count(*) FROM bank.transfers t LEFT JOIN headwater.sagas s ON s.saga = 'transfer' AND s.id = t.id::text
          WHERE s.id IS NULL OR (s.open AND s.status <> 'parked'))::text AS open_sagas,
         ((SELECT count(*) FROM headwater.parked) + (SELECT count(*) FROM headwater.sagas WHERE status = 'parked'))::text AS parked
  FROM bank.accounts a LEFT JOIN journal j ON j.account_id = a.id LEFT JOIN held h ON h.account_id = a.id
  GROUP BY a.currency`;

@Injectable()
export class LedgerService {
  constructor(private readonly database: Database) {}

  /** Debits equal credits per currency, balances equal the journal, holds equal what is held, nobody is below the limit: on one cut. */
  async check(): Promise<LedgerCheck> {
    const { rows } = await this.database.query<{
      currency: string;
      sum_cents: string;
      held_cents: string;
      accounts: string;
      balances_agree: boolean;
      within_limits: boolean;
      open_sagas: string;
      parked: string;
    }>(CHECK);
    return {
      ok: rows.every((row) => row.sum_cents === '0' && row.balances_agree && row.within_limits),
      currencies: Object.fromEntries(
        rows.map((row) => [
          row.currency,
          { sumCents: Number(row.sum_cents), heldCents: Number(row.held_cents), accounts: Number(row.accounts) },
        ]),
      ),
      openSagas: Number(rows[0]?.open_sagas ?? 0),
      parked: Number(rows[0]?.parked ?? 0),
    };
  }
}
