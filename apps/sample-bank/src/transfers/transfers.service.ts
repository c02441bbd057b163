import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Database, emit, type Sql } from '@headwater/core';
import type { SagaRow } from '@headwater/sagas';
import { unknownAccount } from '../accounts/accounts.service.js';
import { Idempotency } from '../http/idempotency.js';
import { Problem } from '../http/problem.js';
import { TransferRequested } from './transfer.messages.js';
import type { TransferBody } from './transfers.dto.js';

/** Takes transfers: the row and the event that starts the saga are one SQL transaction. */
@Injectable()
export class TransfersService {
  constructor(
    private readonly database: Database,
    private readonly idempotency: Idempotency,
  ) {}

  request(body: TransferBody, idempotencyKey: string | undefined) {
    if (idempotencyKey === undefined)
      throw new Problem(400, 'idempotency-key-required', 'Send an Idempotency-Key, so that a repeat is recognised.');
    if (body.fromAccountId === body.toAccountId)
      throw new Problem(422, 'self-transfer', 'A transfer needs two different accounts.');
    return this.idempotency.once(`transfers/${idempotencyKey}`, body, async (sql) => {
      await this.#checkAccounts(sql, body);
      const transferId = randomUUID();
      await sql.query(
        'INSERT INTO bank.transfers (id, from_account_id, to_account_id, amount_cents, currency, reference) VALUES ($1, $2, $3, $4, $5, $6)',
        [transferId, body.fromAccountId, body.toAccountId, body.amountCents, body.currency, body.reference ?? null],
      );
      await emit(sql, new TransferRequested(Object.assign({ transferId }, body)), {
        source: 'bank/api',
        id: transferId,
        correlation: transferId,
      });
      return { transferId, status: 'pending' as const };
    });
  }

  async view(transferId: string) {
    const { rows } = await this.database.query<
      Pick<SagaRow, 'reason' | 'steps'> & { status: SagaRow['status'] | null }
    >(
      `SELECT s.status, s.reason, s.steps FROM bank.transfers t LEFT JOIN headwater.sagas s ON s.saga = 'transfer' AND s.id = t.id::text WHERE t.id::text = $1`,
      [transferId],
    );
    const known = rows[0];
    if (known === undefined) throw new Problem(404, 'unknown-transfer', `There is no transfer ${transferId}.`);
    return {
      transferId,
      status: publicStatus(known.status),
      ...(known.reason === null ? {} : { reason: known.reason }),
      steps: (known.steps ?? []).map((step) => ({
        name: step.name,
        status: step.status,
        at: new Date(step.at).toISOString(),
      })),
    };
  }

  async #checkAccounts(sql: Sql, body: TransferBody): Promise<void> {
    const { rows } = await sql.query<{ id: string; currency: string }>(
      `SELECT id, currency FROM bank.accounts WHERE id = ANY($1::uuid[]) AND kind = 'customer'`,
      [[body.fromAccountId, body.toAccountId]],
    );
    for (const accountId of [body.fromAccountId, body.toAccountId]) {
      const account = rows.find((row) => row.id === accountId.toLowerCase());
      if (account === undefined) throw unknownAccount(accountId);
      if (account.currency !== body.currency) {
        throw new Problem(
          422,
          'wrong-currency',
          `Account ${accountId} is kept in ${account.currency}, the transfer is in ${body.currency}.`,
        );
      }
    }
  }
}

/** What a customer sees: a saga under way is pending, whichever way it goes. */
function publicStatus(status: SagaRow['status'] | null): string {
  return status === null || status === 'running' || status === 'compensating' ? 'pending' : status;
}
