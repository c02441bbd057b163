import { Controller, Get, Header, Inject } from '@nestjs/common';
import { HealthCheck, HealthCheckService, HealthIndicatorService } from '@nestjs/terminus';
import { ApiTags } from '@nestjs/swagger';
import { Database } from '@headwater/core';
import { HeadwaterRuntime } from '@headwater/core/nest';
import { Metrics } from './metrics.js';

@ApiTags('operations')
@Controller()
export class HealthController {
  constructor(
    @Inject(HealthCheckService) private readonly health: HealthCheckService,
    @Inject(HealthIndicatorService) private readonly indicators: HealthIndicatorService,
    private readonly runtime: HeadwaterRuntime,
    private readonly database: Database,
    private readonly metrics: Metrics,
  ) {}

  @Get('health/live')
  live() {
    return { status: 'ok' };
  }

  /** Up when the database answers and every engine of this process works. */
  @Get('health/ready')
  @HealthCheck()
  ready() {
    return this.health.check([
      async () => {
        await this.database.query('SELECT 1');
        return this.indicators.check('database').up();
      },
      ...this.runtime.health().map((health) => () => {
        const indicator = this.indicators.check(health.name);
        return health.status === 'up'
          ? indicator.up({ ...health.facts })
          : indicator.down({ state: health.status, ...health.facts });
      }),
    ]);
  }

  @Get('metrics')
  @Header('content-type', 'text/plain; version=0.0.4')
  text(): Promise<string> {
    return this.metrics.text();
  }
}
