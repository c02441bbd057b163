import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsInt, IsNotEmpty, IsOptional, IsString, Matches, Max, MaxLength, Min } from 'class-validator';

export const CURRENCY = /^[A-Z]{3}$/;

export class OpenAccountBody {
  @ApiProperty({ example: 'Ada' }) @IsString() @IsNotEmpty() @MaxLength(200) owner!: string;
  @ApiProperty({ example: 'EUR', description: 'ISO 4217' })
  @Matches(CURRENCY, { message: 'currency must be an ISO 4217 code' })
  currency!: string;
  @ApiPropertyOptional({ example: 0 })
  @IsOptional()
  @IsInt()
  @Min(0)
  @Max(Number.MAX_SAFE_INTEGER)
  overdraftLimitCents?: number;
}

export class AmountBody {
  @ApiProperty({ example: 10_000, description: 'Minor units' })
  @IsInt()
  @Min(1)
  @Max(Number.MAX_SAFE_INTEGER)
  amountCents!: number;
}
