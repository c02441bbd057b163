import { IsInt, IsOptional, IsString, IsUUID, Max, Min } from 'class-validator';
import { Command, Event, Key } from '@headwater/core';

/** What every message of a transfer tells. */
class TransferDetails {
  @IsUUID() transferId!: string;
  @IsUUID() fromAccountId!: string;
  @IsUUID() toAccountId!: string;
  @IsInt() @Min(1) @Max(Number.MAX_SAFE_INTEGER) amountCents!: number;
  @IsString() currency!: string;
  @IsOptional() @IsString() reference?: string;

  constructor(details: TransferDetails) {
    this.transferId = details.transferId;
    this.fromAccountId = details.fromAccountId;
    this.toAccountId = details.toAccountId;
    this.amountCents = details.amountCents;
    this.currency = details.currency;
    if (details.reference !== undefined) this.reference = details.reference;
  }
}

@Event({ topic: 'bank.transfers', type: 'TransferRequested' })
export class TransferRequested extends TransferDetails {
  @Key() declare transferId: string;
}

/** Commands of the ledger are keyed by the paying account: what happens to one account happens in one order. */
@Command({ topic: 'bank.ledger.commands', type: 'ReserveFunds' })
export class ReserveFunds extends TransferDetails {
  @Key() declare fromAccountId: string;
}

@Command({ topic: 'bank.ledger.commands', type: 'ReleaseFunds' })
export class ReleaseFunds extends TransferDetails {
  @Key() declare fromAccountId: string;
}

@Command({ topic: 'bank.ledger.commands', type: 'PostTransfer' })
export class PostTransfer extends TransferDetails {
  @Key() declare fromAccountId: string;
}

@Command({ topic: 'bank.compliance.commands', type: 'ScreenTransfer' })
export class ScreenTransfer extends TransferDetails {
  @Key() declare transferId: string;
}

@Command({ topic: 'bank.receipts.commands', type: 'SendReceipt' })
export class SendReceipt extends TransferDetails {
  @Key() declare transferId: string;
}
