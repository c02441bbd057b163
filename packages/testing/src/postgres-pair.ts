import { chownSync, cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { eventually } from './eventually.js';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './embedded-postgres.js';
import { ensurePostgresUser } from './postgres-binaries.js';
import type { ServerHandle } from './server-process.js';

export interface PostgresPairOptions {
  /** Absolute directory of both clusters; made when absent. */
  readonly directory: string;
  readonly primarySettings?: Readonly<Record<string, string>>;
  readonly standbySettings?: Readonly<Record<string, string>>;
  /** Environment to hand to the servers. Default: that of this process. */
  readonly env?: NodeJS.ProcessEnv;
}

/** One of the two servers. Both have the same password. */
export interface PostgresOfPair {
  readonly databaseUrl: string;
  readonly server: ServerHandle;
}

export interface PostgresPair {
  readonly primary: PostgresOfPair;
  /** Takes its WAL from the physical slot STANDBY_SLOT of the primary. */
  readonly standby: PostgresOfPair;
  /** Resolves when the standby has replayed what the primary has written by now. */
  caughtUp(): Promise<void>;
  /** Makes the standby a primary on a timeline of its own; the former primary is left as it is. */
  promote(): Promise<void>;
  /** Stops both; may be called twice. */
  stop(): Promise<void>;
}

export const STANDBY_SLOT = 'standby';

/** An embedded Postgres and its asynchronous standby, for tests that lose one and promote the other. Resolves when both answer. */
export async function postgresPair(options: PostgresPairOptions): Promise<PostgresPair> {
  const { directory, env = process.env } = options;
  const [home, away] = [join(directory, 'primary'), join(directory, 'standby')];
  const first = await startEmbeddedPostgres({ directory: home, env });
  await query(first.databaseUrl, 'SELECT pg_create_physical_replication_slot($1)', [STANDBY_SLOT]);
  // Stopped, a data directory is its own base backup.
  await first.server.stop();
  mkdirSync(away, { recursive: true });
  for (const name of ['data', 'password']) cpSync(join(home, name), join(away, name), { recursive: true });
  writeFileSync(join(away, 'data', 'standby.signal'), '');
  const user = await ensurePostgresUser();
  if (user !== undefined) {
    for (const name of [
      'data',
      ...readdirSync(join(away, 'data'), { recursive: true, encoding: 'utf8' }).map((path) => join('data', path)),
    ])
      chownSync(join(away, name), user.uid, user.gid);
  }
  const started: EmbeddedPostgres[] = [];
  const stop = async (): Promise<void> => void (await Promise.all(started.map(({ server }) => server.stop())));
  try {
    const primary = await startEmbeddedPostgres({ directory: home, env, settings: options.primarySettings ?? {} });
    started.push(primary);
    const { port, password } = new URL(primary.databaseUrl);
    const standby = await startEmbeddedPostgres({
      directory: away,
      env,
      settings: {
        primary_conninfo: `host=127.0.0.1 port=${port} user=postgres password=${password} dbname=postgres`,
        primary_slot_name: STANDBY_SLOT,
        hot_standby_feedback: 'on',
        ...options.standbySettings,
      },
    });
    started.push(standby);
    return {
      primary,
      standby,
      stop,
      async caughtUp() {
        const [{ lsn } = { lsn: '' }] = await query<{ lsn: string }>(
          primary.databaseUrl,
          'SELECT pg_current_wal_lsn()::text AS lsn',
        );
        const reached = `SELECT 1 FROM (SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS yes) r WHERE yes`;
        await eventually(async () => {
          if ((await query(standby.databaseUrl, reached, [lsn])).length === 0)
            throw new Error(`The standby is behind ${lsn}.`);
        });
      },
      promote: async () => void (await query(standby.databaseUrl, 'SELECT pg_promote(true, 60)')),
    };
  } catch (error) {
    // One that is left alone would outlive the error.
    await stop();
    throw error;
  }
}

async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text, [...values])).rows;
  } finally {
    await client.end();
  }
}
