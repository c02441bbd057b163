import { Injectable } from '@nestjs/common';
import { Rejected, errorCode } from '@headwater/core';
import { CommandHandler, type SqlContext } from '@headwater/sagas';
import { PostTransfer, ReleaseFunds, ReserveFunds, ScreenTransfer, SendReceipt } from './transfer.messages.js';

/** The ledger: holds and double entries. */
@Injectable()
export class Ledger {
  @CommandHandler(ReserveFunds)
  async reserve(command: ReserveFunds, { sql }: SqlContext): Promise<void> {
    const { rowCount } = await sql.query(
      `UPDATE bank.accounts SET held_cents = held_cents + $2, version = version + 1
       WHERE id = $1 AND posted_cents - held_cents + overdraft_limit_cents >= $2`,
      [command.fromAccountId, command.amountCents],
    );
    if (rowCount === 0) throw new Rejected('insufficient-funds');
    await sql.query('INSERT INTO bank.holds (transfer_id, account_id, amount_cents) VALUES ($1, $2, $3)', [
      command.transferId,
      command.fromAccountId,
      command.amountCents,
    ]);
  }

  @CommandHandler(ReleaseFunds)
  async release(command: ReleaseFunds, { sql }: SqlContext): Promise<void> {
    await sql.query(
      `WITH released AS (DELETE FROM bank.holds WHERE transfer_id = $1 RETURNING account_id, amount_cents)
       UPDATE bank.accounts a SET held_cents = held_cents - r.amount_cents, version = version + 1 FROM released r WHERE a.id = r.account_id`,
      [command.transferId],
    );
  }

  /** Takes the hold and moves the money: two entries that sum to zero. Locks the accounts in the order of their ids. */
  @CommandHandler(PostTransfer)
  async post(command: PostTransfer, { sql }: SqlContext): Promise<void> {
    await sql.query('SELECT 1 FROM bank.accounts WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE', [
      [command.fromAccountId, command.toAccountId],
    ]);
    const { rowCount } = await sql.query('DELETE FROM bank.holds WHERE transfer_id = $1', [command.transferId]);
    if (rowCount !== 1) throw new Rejected('hold-missing');
    try {
      await sql.query(
        `UPDATE bank.accounts SET version = version + 1,
           posted_cents = posted_cents + CASE WHEN id = $1 THEN -$3::bigint ELSE $3::bigint END,
           held_cents = held_cents - CASE WHEN id = $1 THEN $3::bigint ELSE 0 END
         WHERE id IN ($1, $2)`,
        [command.fromAccountId, command.toAccountId, command.amountCents],
      );
    } catch (error) {
      if (errorCode(error) === '22003') throw new Rejected('amount-too-large');
      throw error;
    }
    await sql.query(
      `INSERT INTO bank.entries (journal_id, account_id, amount_cents, currency, kind, reference)
       VALUES ($1, $2, -$4::bigint, $5, 'transfer', $6), ($1, $3, $4::bigint, $5, 'transfer', $6)`,
      [
        command.transferId,
        command.fromAccountId,
        command.toAccountId,
        command.amountCents,
        command.currency,
        command.reference ?? null,
      ],
    );
  }
}

/** Refuses payments whose reference names something on the sanctions list. */
@Injectable()
export class Compliance {
  @CommandHandler(ScreenTransfer)
  async screen(command: ScreenTransfer, { sql }: SqlContext): Promise<void> {
    const { rows } = await sql.query('SELECT 1 FROM bank.sanctions WHERE strpos(upper($1), word) > 0', [
      command.reference ?? '',
    ]);
    if (rows.length > 0) throw new Rejected('sanctioned');
  }
}

/** Writes receipts; a mail server would be called from here. */
@Injectable()
export class Receipts {
  @CommandHandler(SendReceipt)
  async send(command: SendReceipt, { sql }: SqlContext): Promise<void> {
    await sql.query('INSERT INTO bank.receipts (transfer_id) VALUES ($1)', [command.transferId]);
  }
}
