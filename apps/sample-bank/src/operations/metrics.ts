import { Injectable } from '@nestjs/common';
import { Database, prometheusText } from '@headwater/core';
import { HeadwaterRuntime } from '@headwater/core/nest';
import { Gauge, Registry, collectDefaultMetrics } from 'prom-client';

/** Prometheus text: the process, each engine as up (1) or not (0), and what waits for an operator. */
@Injectable()
export class Metrics {
  readonly #registry = new Registry();

  constructor(
    private readonly runtime: HeadwaterRuntime,
    database: Database,
  ) {
    collectDefaultMetrics({ register: this.#registry });
    new Gauge({
      name: 'headwater_engine_up',
      help: '1 while the engine works, 0 while it starts or is down',
      labelNames: ['engine'],
      registers: [this.#registry],
      collect() {
        for (const health of runtime.health()) this.set({ engine: health.name }, health.status === 'up' ? 1 : 0);
      },
    });
    new Gauge({
      name: 'headwater_sagas_parked',
      help: 'Sagas that need an operator; alert above 0. Absent while the database does not answer',
      labelNames: ['saga'],
      registers: [this.#registry],
      async collect() {
        this.reset();
        const parked = await database
          .query<{ saga: string; parked: number }>(
            `SELECT saga, (count(*) FILTER (WHERE status = 'parked'))::int AS parked FROM headwater.sagas WHERE open GROUP BY saga`,
          )
          .catch(() => ({ rows: [] }));
        for (const { saga, parked: count } of parked.rows) this.set({ saga }, count);
      },
    });
  }

  async text(): Promise<string> {
    return `${await this.#registry.metrics()}\n${prometheusText(this.runtime.metrics())}`;
  }
}
