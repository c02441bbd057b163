import { MikroORM, EntitySchema } from '@mikro-orm/postgresql';
import { PrismaPg } from '@prisma/adapter-pg';
import { drizzle } from 'drizzle-orm/node-postgres';
import { sql } from 'drizzle-orm';
import knex from 'knex';
import { CompiledQuery, Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { DataSource } from 'typeorm';

/** One library as a test uses it: transactions of its own, and what it hands out outside of them. */
export interface Library {
  /** Runs `work` in a transaction; `insert` writes a row of `t` in the library's own way. Rolled back when `work` rejects. */
  transaction(work: (tx: unknown, insert: (id: number) => Promise<unknown>) => Promise<void>): Promise<void>;
  readonly outside: unknown;
  close(): Promise<unknown>;
}

const INSERT = 'INSERT INTO t VALUES ($1)';

export const LIBRARIES: Readonly<Record<string, (url: string) => Promise<Library>>> = {
  async pg(url) {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    return {
      async transaction(work) {
        await client.query('BEGIN');
        try {
          await work(client, (id) => client.query(INSERT, [id]));
          await client.query('COMMIT');
        } catch (error) {
          await client.query('ROLLBACK');
          throw error;
        }
      },
      outside: client,
      close: () => client.end(),
    };
  },

  async TypeORM(url) {
    const source = await new DataSource({ type: 'postgres', url }).initialize();
    return {
      transaction: (work) => source.transaction((tx) => work(tx, (id) => tx.query(INSERT, [id]))),
      outside: source.manager,
      close: () => source.destroy(),
    };
  },

  async Drizzle(url) {
    const pool = new pg.Pool({ connectionString: url });
    const db = drizzle(pool);
    return {
      transaction: (work) => db.transaction((tx) => work(tx, (id) => tx.execute(sql`INSERT INTO t VALUES (${id})`))),
      outside: db,
      close: () => pool.end(),
    };
  },

  async Knex(url) {
    const db = knex({ client: 'pg', connection: url });
    return {
      transaction: (work) => db.transaction((trx) => work(trx, async (id) => trx('t').insert({ id }))),
      outside: db,
      close: () => db.destroy(),
    };
  },

  async Kysely(url) {
    const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }) });
    return {
      transaction: (work) =>
        db.transaction().execute((tx) => work(tx, (id) => tx.executeQuery(CompiledQuery.raw(INSERT, [id])))),
      outside: db,
      close: () => db.destroy(),
    };
  },

  async MikroORM(url) {
    const T = new EntitySchema({ name: 'T', tableName: 't', properties: { id: { type: 'number', primary: true } } });
    const orm = await MikroORM.init({ clientUrl: url, entities: [T], discovery: { disableDynamicFileAccess: true } });
    const em = orm.em.fork();
    return {
      transaction: (work) => em.transactional((tx) => work(tx, (id) => tx.insert(T, { id }))),
      outside: em,
      close: () => orm.close(),
    };
  },

  // The generated client needs a binary from the network; what it calls is this adapter, and $queryRawUnsafe is its queryRaw.
  async Prisma(url) {
    const adapter = await new PrismaPg({ connectionString: url }).connect();
    const raw = (run: Pick<typeof adapter, 'queryRaw'>) => ({
      async $queryRawUnsafe(text: string, ...args: unknown[]) {
        const argTypes = args.map(() => ({ scalarType: 'string', arity: 'scalar' }) as const);
        const result = await run.queryRaw({ sql: text, args, argTypes });
        return result.rows.map((row) => Object.fromEntries(result.columnNames.map((name, i) => [name, row[i]])));
      },
    });
    return {
      async transaction(work) {
        const tx = await adapter.startTransaction();
        try {
          await work(raw(tx), (id) => raw(tx).$queryRawUnsafe(`INSERT INTO t VALUES (${id})`));
          await tx.executeRaw({ sql: 'COMMIT', args: [], argTypes: [] });
          await tx.commit();
        } catch (error) {
          await tx.executeRaw({ sql: 'ROLLBACK', args: [], argTypes: [] });
          await tx.rollback();
          throw error;
        }
      },
      outside: raw(adapter),
      close: () => adapter.dispose(),
    };
  },
};
