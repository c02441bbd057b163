import { HeadwaterError } from '../errors/headwater.error.js';
import type { Sql } from './database.js';

/** A transaction of somebody's library, as the outbox uses it. */
export interface TransactionHandle extends Sql {
  /** True when the library itself knows that its transaction is open; else the server is asked. */
  readonly isOpen: boolean;
}

type Rows = readonly Record<string, unknown>[];
type Call<Result = unknown> = (...args: unknown[]) => Result;
type Handle = Readonly<Record<string, unknown>> & { query: Call<Promise<unknown>> };

/** One per library, told by what its handle can do: no library is imported, and none is a dependency. */
interface Seam {
  readonly library: string;
  readonly fits: (tx: Handle) => boolean;
  readonly open: (tx: Handle) => TransactionHandle;
}

const has = (tx: Handle, ...methods: string[]) => methods.every((name) => typeof tx[name] === 'function');

const SEAMS: readonly Seam[] = [
  // EntityManager of a transaction, or a QueryRunner. The manager of a DataSource has no runner and runs outside.
  { library: 'TypeORM', fits: (tx) => has(tx, 'query', 'startTransaction'), open: typeOrm },
  {
    library: 'TypeORM',
    fits: (tx) => 'queryRunner' in tx && has(tx, 'getRepository'),
    open: (tx) => typeOrm((tx['queryRunner'] as Handle | undefined) ?? tx),
  },
  {
    library: 'Prisma',
    fits: (tx) => has(tx, '$queryRawUnsafe'),
    open: (tx) => {
      const run = tx['$queryRawUnsafe'] as Call<Promise<Rows>>;
      return handle(false, async (text, values) => run.call(tx, text, ...values));
    },
  },
  { library: 'MikroORM', fits: (tx) => has(tx, 'getTransactionContext', 'getConnection'), open: mikroOrm },
  { library: 'Knex', fits: (tx) => has(tx, 'raw', 'transaction'), open: knex },
  { library: 'Kysely', fits: (tx) => has(tx, 'executeQuery') && 'isTransaction' in tx, open: kysely },
  { library: 'Drizzle', fits: (tx) => has(tx, 'execute', 'transaction', 'select'), open: drizzle },
  {
    library: 'pg',
    fits: (tx) => has(tx, 'query'),
    open: (tx) => handle(false, async (t, v) => rowsOf(await tx.query(t, v))),
  },
];

/** The caller's transaction as something that runs SQL. Throws OUTBOX_HANDLE_UNKNOWN for what is no handle of a library known here. */
export function transactionHandle(tx: unknown): TransactionHandle {
  const isHandle = (typeof tx === 'object' && tx !== null) || typeof tx === 'function';
  const seam = isHandle ? SEAMS.find(({ fits }) => fits(tx as Handle)) : undefined;
  if (seam === undefined) {
    const known = [...new Set(SEAMS.map(({ library }) => library))].join(', ');
    throw new HeadwaterError(
      'OUTBOX_HANDLE_UNKNOWN',
      `this is no transaction of ${known}. Pass the handle that the library gives to its transaction callback, or an object with query(text, values).`,
    );
  }
  return seam.open(tx as Handle);
}

/** What is emitted outside of a transaction would be published although the rows beside it may fail. */
export function outside(cause: unknown): HeadwaterError {
  return new HeadwaterError(
    'OUTBOX_NO_TRANSACTION',
    `the handle is not in a transaction. Emit inside of the transaction that writes the rows, through its own handle.`,
    { cause },
  );
}

function handle(isOpen: boolean, run: (text: string, values: readonly unknown[]) => Promise<Rows>): TransactionHandle {
  return {
    isOpen,
    async query<Row extends object>(text: string, values: readonly unknown[] = []) {
      const rows = (await run(text, values)) as unknown as Row[];
      return { rows, rowCount: rows.length };
    },
  };
}

function rowsOf(result: unknown): Rows {
  return Array.isArray(result) ? result : ((result as { rows?: Rows } | undefined)?.rows ?? []);
}

function typeOrm(runner: Handle): TransactionHandle {
  return handle(runner['isTransactionActive'] === true, async (text, values) =>
    rowsOf(await runner.query(text, [...values])),
  );
}

/** MikroORM stands on Knex (6) or Kysely (7), and hands out the transaction of either. */
function mikroOrm(tx: Handle): TransactionHandle {
  const context = (tx['getTransactionContext'] as Call).call(tx);
  if (context !== undefined && context !== null) return transactionHandle(context);
  const connection = (tx['getConnection'] as Call<Handle>).call(tx);
  return transactionHandle((connection[has(connection, 'getKnex') ? 'getKnex' : 'getClient'] as Call).call(connection));
}

/** Knex binds `?`, each value where it stands. */
function knex(tx: Handle): TransactionHandle {
  return handle(tx['isTransaction'] === true, async (text, values) => {
    const bindings: unknown[] = [];
    const sql = text.replaceAll('?', '\\?').replaceAll(/\$(\d+)/g, (_, n: string) => {
      bindings.push(values[Number(n) - 1]);
      return '?';
    });
    return rowsOf(await (tx['raw'] as Call<Promise<unknown>>).call(tx, sql, bindings));
  });
}

/** Kysely runs a compiled query: its text, its parameters and a node that is the raw text. */
function kysely(tx: Handle): TransactionHandle {
  return handle(tx['isTransaction'] === true, async (sql, parameters) => {
    const query = { kind: 'RawNode', sqlFragments: [sql], parameters: [] };
    const queryId = { queryId: 'headwater' };
    return rowsOf(await (tx['executeQuery'] as Call<Promise<unknown>>).call(tx, { sql, parameters, query, queryId }));
  });
}

/** Drizzle runs whatever can be turned into a query: here it is one already. Its handle outlives its transaction, so the server is asked. */
function drizzle(tx: Handle): TransactionHandle {
  return handle(false, async (sql, params) => {
    const query = { toQuery: () => ({ sql, params: [...params], typings: [] }) };
    return rowsOf(await (tx['execute'] as Call<Promise<unknown>>).call(tx, { getSQL: () => query }));
  });
}
