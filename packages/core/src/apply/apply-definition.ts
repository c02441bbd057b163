import type { LogRecord } from '../log/log.js';
import type { Sql } from '../postgres/database.js';

/**
 * Topics → Postgres. `prepare` is pure and may refuse a record, which parks its key; `write` puts what was prepared into Postgres, in
 * log order per partition, in the transaction that also moves the offsets.
 */
export interface ApplyDefinition<Prepared = unknown> {
  /** Names its group and its offset rows; a new version of a definition takes a new name. */
  readonly consumer: string;
  readonly topics: readonly string[];
  /** Throws ContractError or Rejected for a record that must be parked. `undefined`: nothing to write for this record. */
  prepare(record: LogRecord): Prepared | undefined;
  /** May run again with the same work after a rollback. Throwing rolls everything back, offsets included, and the batch is repeated. */
  write(prepared: readonly Prepared[], sql: Sql): Promise<void>;
  /** A record is set aside in the transaction of `sql`: whoever waits for it can be told. Throwing rolls everything back, as in `write`. */
  onParked?(record: LogRecord, error: unknown, sql: Sql): Promise<void>;
}
