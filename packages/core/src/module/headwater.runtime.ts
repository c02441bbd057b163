import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { HeadwaterError, WiringError } from '../errors/headwater.error.js';
import { ProcessRunner } from '../process/process-runner.js';
import type { Health, Running } from '../lifecycle/running.js';
import type { Metric } from '../lifecycle/metric.js';
import { systemClock } from '../clock/clock.js';
import { Database } from '../postgres/database.js';
import { ensureSchema } from '../postgres/schema.js';
import type { Features } from './engine.js';
import { ROLES } from './engine.js';
import { FeatureSet, HEADWATER_OPTIONS } from './tokens.js';
import { defaultPartitions, type HeadwaterOptions } from './options.js';
import { wire } from './wiring.js';
import type { MessageClass } from '../model/model.js';

/** Starts the engines of this process's roles after the application is wired, and stops them before it ends. */
@Injectable()
export class HeadwaterRuntime implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #options: HeadwaterOptions;
  readonly #discovery: DiscoveryService;
  readonly #database: Database;
  readonly #logger = new Logger('Headwater');
  #running: Running[] = [];

  constructor(
    @Inject(HEADWATER_OPTIONS) options: HeadwaterOptions,
    @Inject(DiscoveryService) discovery: DiscoveryService,
    @Inject(Database) database: Database,
  ) {
    this.#options = options;
    this.#discovery = discovery;
    this.#database = database;
  }

  health(): readonly Health[] {
    return this.#running.map((running) => running.health());
  }

  /** What a Prometheus page shows of the engines of this process. */
  metrics(): readonly Metric[] {
    return this.#running.flatMap((running) => running.metrics?.() ?? []);
  }

  /**
   * A processor that runs in this process, to pause and resume it or to read its local state; a saga is `saga.<name>`. Throws PROCESSOR_UNKNOWN for any
   * other, and before the application has started.
   */
  processor(name: string): ProcessRunner {
    const processors = this.#running.filter((running) => running instanceof ProcessRunner);
    const found = processors.find((processor) => processor.name === name);
    if (found !== undefined) return found;
    const here = processors.map((processor) => processor.name).join(', ') || 'none';
    throw new HeadwaterError(
      'PROCESSOR_UNKNOWN',
      `no processor ${name} runs in this process; there are: ${here}. Check the name, the roles of this process, and that its engine is among forRoot({ engines }).`,
      { facts: { name } },
    );
  }

  async onApplicationBootstrap(): Promise<void> {
    const roles = this.#options.roles ?? ROLES;
    const wiring = wire(this.#options.engines, this.#features(), this.#options.partitions ?? defaultPartitions);
    await ensureSchema(this.#database, wiring.ddl);
    if (roles.every((role) => role === 'api')) return;
    const { log } = this.#options;
    if (log === undefined)
      throw new WiringError([
        `Roles ${roles.join(', ')} need a log. Pass one to forRoot({ log }), or start with role api only.`,
      ]);
    await log.admin.ensureTopics(wiring.topics);
    const context = {
      log,
      database: this.#database,
      logger: this.#logger,
      clock: this.#options.clock ?? systemClock,
      instanceId: this.#options.instanceId,
    };
    for (const part of wiring.plans.flatMap((plan) => plan.parts)) {
      if (roles.includes(part.role)) this.#running.push(...(await part.start(context)));
    }
  }

  /** Stops everything at once, each draining by itself; then the log and the pool. */
  async onApplicationShutdown(): Promise<void> {
    const running = this.#running;
    this.#running = [];
    const stopped = await Promise.allSettled(running.map((one) => one.stop()));
    for (const result of stopped)
      if (result.status === 'rejected') this.#logger.error(`stopping: ${String(result.reason)}`);
    await this.#options.log?.close();
    await this.#database.close();
  }

  #features(): Features {
    const providers = this.#discovery.getProviders();
    const sets = providers
      .map((wrapper) => wrapper.instance as unknown)
      .filter((instance): instance is FeatureSet => instance instanceof FeatureSet);
    const classes = [...new Set(sets.flatMap((set) => set.classes))];
    return {
      classes,
      instanceOf: (type: MessageClass) =>
        providers.find((wrapper) => wrapper.metatype === (type as unknown))?.instance as object | undefined,
    };
  }
}
