import { IsIn, IsString } from 'class-validator';
import { Changelog, Int64, Key } from '@headwater/core';

/** An account as captured from `bank.accounts`. */
@Changelog({ topic: 'bank.accounts', table: 'bank.accounts' })
export class Account {
  @Key() @IsString() id!: string;
  @IsString() owner!: string;
  @IsString() currency!: string;
  @IsIn(['customer', 'system']) kind!: string;
  @Int64() overdraftLimitCents!: bigint;
  @Int64() postedCents!: bigint;
  @Int64() heldCents!: bigint;
  @Int64() version!: bigint;
}
