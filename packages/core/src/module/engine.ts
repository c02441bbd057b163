import type { Log, TopicSpec } from '../log/log.js';
import type { Logger, Running } from '../lifecycle/running.js';
import type { MessageClass } from '../model/model.js';
import type { Database } from '../postgres/database.js';
import type { Clock } from '../clock/clock.js';

/** What a process can be asked to do. `api` needs Postgres only. */
export type Role = 'api' | 'capture' | 'processors' | 'projections';
export const ROLES: readonly Role[] = ['api', 'capture', 'processors', 'projections'];

/** Everything the application declared through `forFeature`. */
export interface Features {
  readonly classes: readonly MessageClass[];
  /** The Nest provider of a class: handlers and sagas are ordinary injectables. */
  instanceOf(type: MessageClass): object | undefined;
}

/** What an engine starts with. */
export interface EngineContext {
  readonly log: Log;
  readonly database: Database;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Stable name of this instance, when the deployment has one. */
  readonly instanceId: string | undefined;
}

/** What an engine makes of the features, before anything is started. All mistakes of all engines are reported together. */
export interface EnginePlan {
  readonly mistakes: readonly string[];
  readonly topics: readonly PlannedTopic[];
  readonly ddl: readonly string[];
  /** Started in this order, each when the process has its role. */
  readonly parts: readonly EnginePart[];
}

export interface EnginePart {
  readonly role: Exclude<Role, 'api'>;
  start(context: EngineContext): Promise<readonly Running[]>;
}

/** A topic to be there; without `partitions`, the application's default. */
export type PlannedTopic = Omit<TopicSpec, 'partitions'> & { readonly partitions?: number };

/** A package's part in the application: capture, projections, sagas. */
export interface Engine {
  readonly name: string;
  plan(features: Features): EnginePlan;
}

export const compacted = (topic: string): PlannedTopic => ({ topic, cleanupPolicy: 'compact' });
export const keptForEver = (topic: string): PlannedTopic => ({
  topic,
  cleanupPolicy: 'delete',
  config: { 'retention.ms': '-1' },
});
