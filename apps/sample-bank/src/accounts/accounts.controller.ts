import { Body, Controller, Get, Headers, HttpCode, Param, Post, Query } from '@nestjs/common';
import { ApiHeader, ApiQuery, ApiTags } from '@nestjs/swagger';
import { pageSize } from '../http/page-size.js';
import { AmountBody, OpenAccountBody } from './accounts.dto.js';
import { AccountsService } from './accounts.service.js';

@ApiTags('accounts')
@Controller('accounts')
export class AccountsController {
  constructor(private readonly accounts: AccountsService) {}

  @Post()
  @ApiHeader({ name: 'idempotency-key', required: false })
  open(@Body() body: OpenAccountBody, @Headers('idempotency-key') key?: string) {
    return this.accounts.open(body, key);
  }

  @Get()
  @ApiQuery({ name: 'limit', required: false })
  list(@Query('limit') limit?: string) {
    return this.accounts.list(pageSize(limit, 50));
  }

  @Get(':id')
  @ApiQuery({ name: 'token', required: false })
  view(@Param('id') id: string, @Query('token') token?: string) {
    return this.accounts.view(id, token);
  }

  @Get(':id/statement')
  @ApiQuery({ name: 'asOf', required: false })
  @ApiQuery({ name: 'limit', required: false })
  @ApiQuery({ name: 'cursor', required: false })
  statement(
    @Param('id') id: string,
    @Query('asOf') asOf?: string,
    @Query('limit') limit?: string,
    @Query('cursor') cursor?: string,
  ) {
    return this.accounts.statement(id, { asOf, limit: pageSize(limit, 50), cursor });
  }

  @Post(':id/deposits')
  @HttpCode(201)
  @ApiHeader({ name: 'idempotency-key', required: false })
  deposit(@Param('id') id: string, @Body() body: AmountBody, @Headers('idempotency-key') key?: string) {
    return this.accounts.book('deposit', id, body.amountCents, key);
  }

  @Post(':id/withdrawals')
  @HttpCode(201)
  @ApiHeader({ name: 'idempotency-key', required: false })
  withdraw(@Param('id') id: string, @Body() body: AmountBody, @Headers('idempotency-key') key?: string) {
    return this.accounts.book('withdrawal', id, body.amountCents, key);
  }
}
