import pg from 'pg';
import { connectionConfig } from './connection-config.js';

/** What runs SQL: a pool, a client in a transaction, or an adapter around an ORM's handle. */
export interface Sql {
  query<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<{ readonly rows: Row[]; readonly rowCount: number | null }>;
}

/** A point in the WAL that covers everything committed before it was taken. Text, as Postgres prints an LSN. */
export type WalToken = string;

/** A pool of connections with one verb for transactions. */
export class Database implements Sql {
  readonly #pool: pg.Pool;

  constructor(connectionString: string, options: { readonly maxConnections?: number } = {}) {
    this.#pool = new pg.Pool({
      ...connectionConfig(connectionString),
      max: options.maxConnections ?? 10,
      application_name: 'headwater',
    });
    // An idle connection lost by a server restart must not end the process; the next query takes a new one.
    this.#pool.on('error', () => undefined);
  }

  query<Row extends object = Record<string, unknown>>(text: string, values: readonly unknown[] = []) {
    return this.#pool.query<Row & pg.QueryResultRow>(text, [...values]);
  }

  /**
   * Runs `work` in one transaction: committed when it resolves, rolled back when it rejects.
   * When the connection dies during COMMIT the promise rejects and the outcome is unknown to the caller.
   */
  async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return (await this.#run(work)).result;
  }

  /** As `transaction`, with a token a read model can wait for: it covers this commit. */
  async transactionWithToken<T>(work: (sql: Sql) => Promise<T>): Promise<{ result: T; token: WalToken }> {
    const { result, token } = await this.#run(work, async (client) => {
      const flushed = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
      return flushed.rows[0]!.lsn;
    });
    return { result, token: token! };
  }

  async close(): Promise<void> {
    if (!this.#pool.ended) await this.#pool.end();
  }

  async #run<T>(work: (sql: Sql) => Promise<T>, after?: (client: pg.PoolClient) => Promise<string>) {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    const onError = (error: Error) => (broken = error);
    client.on('error', onError);
    try {
      await client.query('BEGIN');
      const result = await work(client as unknown as Sql);
      await client.query('COMMIT');
      return { result, token: await after?.(client) };
    } catch (error) {
      // The first error is the story; a failing ROLLBACK only means that the connection is gone, and with it the transaction.
      await client.query('ROLLBACK').catch((rollback: Error) => (broken = rollback));
      throw error;
    } finally {
      client.off('error', onError);
      client.release(broken);
    }
  }
}
