import type { Metric } from './metric.js';

export interface Health {
  readonly name: string;
  readonly status: 'up' | 'starting' | 'down';
  /** Facts for an operator: last error, lag, positions. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** Something started. It has one owner; `stop` drains, then closes, and may be called twice. */
export interface Running {
  stop(): Promise<void>;
  health(): Health;
  metrics?(): readonly Metric[];
}

export interface Logger {
  log(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export const silentLogger: Logger = { log: () => undefined, warn: () => undefined, error: () => undefined };
