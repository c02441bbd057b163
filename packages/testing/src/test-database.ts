import pg from 'pg';
import { eventually } from './eventually.js';
import { uniqueName } from './unique-name.js';

export interface TestDatabase {
  readonly url: string;
  /** Ends its backends, drops its leftover logical slots, then the database; may be called twice. */
  drop(): Promise<void>;
}

/** A new, empty database on the server of `databaseUrl`, for one spec alone. */
export async function testDatabase(databaseUrl: string): Promise<TestDatabase> {
  const name = uniqueName('test');
  await withClient(databaseUrl, (client) => client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`));
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => withClient(databaseUrl, (client) => dropDatabase(client, name)) };
}

async function dropDatabase(client: pg.Client, name: string): Promise<void> {
  // A walsender may take a moment to die and a client may reconnect: ask again until the slots are free.
  await eventually(async () => {
    await client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
    await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1', [
      name,
    ]);
    await client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(name)} WITH (FORCE)`);
  });
}

async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}
