import { emit, emitContext, emitNow, sqlState } from './outbox.js';
import type { EmitOptions } from './outbox.js';
import { outside, transactionHandle } from './transaction-handle.js';
import type { TransactionHandle } from './transaction-handle.js';

/**
 * The outbox inside of transactions begun by any library: `tx` is a client of pg, the handle that TypeORM, Drizzle, Knex, Kysely,
 * MikroORM or Prisma give to their transaction callback, or anything with `query(text, values)`. Outside of a transaction: OUTBOX_NO_TRANSACTION.
 */
export const outbox = {
  /** Published with the rows of the transaction when it commits, and never when it rolls back. */
  async emit(tx: unknown, message: object, options: EmitOptions): Promise<void> {
    await emit(await inTransaction(tx), message, options);
  },

  /** Published at once, whatever becomes of the transaction; needs none. Before Postgres 17 a crash of the server within `wal_writer_delay` may lose it. */
  async emitNow(tx: unknown, message: object, options: EmitOptions): Promise<void> {
    await emitNow(transactionHandle(tx), message, options);
  },

  /** Headers for all records of the transaction: call it first. */
  async context(tx: unknown, fields: Readonly<Record<string, string>>): Promise<void> {
    await emitContext(await inTransaction(tx), fields);
  },
};

const NO_TRANSACTION = '25P01';

async function inTransaction(tx: unknown): Promise<TransactionHandle> {
  const sql = transactionHandle(tx);
  if (sql.isOpen) return sql;
  try {
    // An id of a transaction proves nothing: it is null before the first write inside, and set by a write outside.
    await sql.query('SAVEPOINT headwater_outbox');
    await sql.query('RELEASE SAVEPOINT headwater_outbox');
  } catch (error) {
    throw sqlState(error) === NO_TRANSACTION ? outside(error) : error;
  }
  return sql;
}
