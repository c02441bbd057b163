import { Injectable } from '@nestjs/common';
import { HeadwaterRuntime } from '@headwater/core';
import { Gauge, Registry, collectDefaultMetrics } from 'prom-client';

/** Prometheus text: the process, and each engine as up (1) or not (0). */
@Injectable()
export class Metrics {
  readonly #registry = new Registry();

  constructor(runtime: HeadwaterRuntime) {
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
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
