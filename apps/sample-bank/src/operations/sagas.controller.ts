import { Controller, Get, Param, Query, UseGuards } from '@nestjs/common';
import { ApiQuery, ApiTags } from '@nestjs/swagger';
import { Database } from '@headwater/core';
import type { SagaRow } from '@headwater/sagas';
import { pageSize } from '../http/page-size.js';
import { Problem } from '../http/problem.js';
import { OperatorGuard } from './operator.guard.js';

/** The operator's view of sagas. */
@ApiTags('sagas')
@UseGuards(OperatorGuard)
@Controller('sagas')
export class SagasController {
  constructor(private readonly database: Database) {}

  @Get()
  @ApiQuery({ name: 'status', required: false })
  @ApiQuery({ name: 'limit', required: false })
  async list(@Query('status') status?: string, @Query('limit') limit?: string) {
    const { rows } = await this.database.query<SagaRow>(
      'SELECT * FROM headwater.sagas WHERE ($1::text IS NULL OR status = $1) ORDER BY updated_at DESC LIMIT $2',
      [status ?? null, pageSize(limit, 50)],
    );
    return rows.map(toView);
  }

  @Get(':id')
  async view(@Param('id') id: string) {
    const { rows } = await this.database.query<SagaRow>('SELECT * FROM headwater.sagas WHERE id = $1', [id]);
    if (rows[0] === undefined) throw new Problem(404, 'unknown-saga', `There is no saga ${id}.`);
    return toView(rows[0]);
  }
}

function toView(row: SagaRow) {
  return {
    saga: row.saga,
    id: row.id,
    version: row.version,
    status: row.status,
    ...(row.reason === null ? {} : { reason: row.reason }),
    startEvent: row.start_event,
    startedAt: row.started_at,
    updatedAt: row.updated_at,
    steps: row.steps.map((step) => ({ ...step, at: new Date(step.at).toISOString() })),
  };
}
