import { systemClock } from '@headwater/core';
import type { Clock, Log } from '@headwater/core';

export interface CapturedTable {
  /** `schema.table`, unquoted, as the catalog spells it. */
  readonly table: string;
  readonly topic: string;
  /** Default: the primary key, else the columns of the identity index. Others need REPLICA IDENTITY FULL. */
  readonly keyColumns?: readonly string[];
}

/** What capture tells about itself while it runs. */
export interface CaptureLogger {
  info(message: string): void;
  warn(message: string): void;
}

export interface CaptureOptions {
  /** Names slot, publication, position and transactional id. Letters, digits, `_`. */
  readonly name: string;
  readonly connectionString: string;
  readonly log: Log;
  readonly tables: readonly CapturedTable[];
  /** Default `headwater_<name>`. */
  readonly slot?: string;
  /** Default `headwater_<name>`; made and altered to publish exactly `tables`. */
  readonly publication?: string;
  /**
   * `initial`: a snapshot when there is no position yet. `never`: changes from now on. `only`: a snapshot and no stream.
   * `when-needed`: as `initial`, and again whenever slot and position no longer fit, instead of a refusal.
   */
  readonly snapshot: 'initial' | 'never' | 'only' | 'when-needed';
  /** Whether logical messages with the prefix `headwater` are routed to their topics. */
  readonly outbox: boolean;
  /** Default `headwater.cdc.<name>.position`. */
  readonly positionTopic?: string;
  /** Default `headwater.cdc.<name>`. */
  readonly transactionalId?: string;
  /** The broker aborts a log transaction open longer than this; raise it for source transactions of millions of rows. Default 60,000. */
  readonly transactionTimeoutMs?: number;
  /** Bytes of records in one log transaction under load; a larger source transaction is appended in parts. Default 4 MiB. */
  readonly maxBatchBytes?: number;
  /** Default 10,000. */
  readonly maxBatchRows?: number;
  /** Rows read at once by a snapshot. Default 5,000. */
  readonly snapshotChunkRows?: number;
  /** Bytes received and not yet published at which the socket is paused. Default 16 MiB. */
  readonly maxQueuedBytes?: number;
  /** Silence from the server that counts as loss. Default 30,000. */
  readonly inboundTimeoutMs?: number;
  /** Called for every error, those that lead to a reconnect included. */
  readonly onError?: (error: unknown) => void;
  readonly logger?: CaptureLogger;
  /** All waiting and all time of capture. Default: the system's; a simulation gives a virtual one. */
  readonly clock?: Clock;
}

export const CAPTURE_DEFAULTS = {
  transactionTimeoutMs: 60_000,
  maxBatchBytes: 4 * 1024 * 1024,
  maxBatchRows: 10_000,
  snapshotChunkRows: 5_000,
  maxQueuedBytes: 16 * 1024 * 1024,
  inboundTimeoutMs: 30_000,
  onError: () => {},
  logger: { info: () => {}, warn: () => {} },
  clock: systemClock,
} as const;

export type ResolvedOptions = Required<CaptureOptions>;

export function resolveOptions(options: CaptureOptions): ResolvedOptions {
  return Object.freeze({
    ...CAPTURE_DEFAULTS,
    slot: `headwater_${options.name}`,
    publication: `headwater_${options.name}`,
    positionTopic: `headwater.cdc.${options.name}.position`,
    transactionalId: `headwater.cdc.${options.name}`,
    ...(Object.fromEntries(
      Object.entries(options).filter(([, value]) => value !== undefined),
    ) as unknown as CaptureOptions),
  });
}
