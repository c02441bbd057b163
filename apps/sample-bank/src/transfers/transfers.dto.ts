import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsOptional, IsString, IsUUID, Matches, Max, MaxLength, Min } from 'class-validator';
import { CURRENCY } from '../accounts/accounts.dto.js';

export class TransferBody {
  @ApiProperty({ format: 'uuid' }) @IsUUID() fromAccountId!: string;
  @ApiProperty({ format: 'uuid' }) @IsUUID() toAccountId!: string;
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
