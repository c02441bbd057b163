import type { Log } from '../log/log.js';
import type { Clock } from '../clock/clock.js';
import type { Engine, Role } from './engine.js';

export interface HeadwaterOptions {
  /** The database of the business rows; Headwater keeps its own tables there in schema `headwater`. */
  readonly databaseUrl: string;
  /** The log. May be left out when the only role is `api`. */
  readonly log?: Log;
  /** What runs on the log: `capture(…)`, `processors()`, `projections()`, `sagas()`. */
  readonly engines: readonly Engine[];
  /** What this process does. Default: everything. */
  readonly roles?: readonly Role[];
  /** Partitions of topics that are created. Fixed for a topic's life: choose for your peak. Default 4. */
  readonly partitions?: number;
  /** Set it when the deployment gives each instance a stable name: a restart then takes over at once. */
  readonly instanceId?: string;
  readonly clock?: Clock;
}

export const defaultPartitions = 4;
