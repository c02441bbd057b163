import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsOptional, IsString, IsUUID, Matches, Max, MaxLength, Min } from 'class-validator';
import { Transform } from 'class-transformer';
import { CURRENCY } from '../accounts/accounts.dto.js';

/** An account has one spelling: it is the key of its commands. */
const LowerCase = () =>
  Transform(({ value }: { value: unknown }) => (typeof value === 'string' ? value.toLowerCase() : value));

export class TransferBody {
  @ApiProperty({ format: 'uuid' }) @LowerCase() @IsUUID() fromAccountId!: string;
  @ApiProperty({ format: 'uuid' }) @LowerCase() @IsUUID() toAccountId!: string;
  @ApiProperty({ example: 2_500, description: 'Minor units' })
  @IsInt()
  @Min(1)
  @Max(Number.MAX_SAFE_INTEGER)
  amountCents!: number;
  @ApiProperty({ example: 'EUR' })
  @Matches(CURRENCY, { message: 'currency must be an ISO 4217 code' })
  currency!: string;
  @ApiPropertyOptional({ example: 'rent' }) @IsOptional() @IsString() @MaxLength(140) reference?: string;
}
