import { Body, Controller, Get, Headers, HttpCode, Param, Post } from '@nestjs/common';
import { ApiHeader, ApiTags } from '@nestjs/swagger';
import { TransferBody } from './transfers.dto.js';
import { TransfersService } from './transfers.service.js';

@ApiTags('transfers')
@Controller('transfers')
export class TransfersController {
  constructor(private readonly transfers: TransfersService) {}

  @Post()
  @HttpCode(202)
  @ApiHeader({ name: 'idempotency-key', required: true })
  request(@Body() body: TransferBody, @Headers('idempotency-key') key?: string) {
    return this.transfers.request(body, key);
  }

  @Get(':id')
  view(@Param('id') id: string) {
    return this.transfers.view(id);
  }
}
