import { connectionConfig } from '@headwater/core';
import { Client } from 'pg';
import type { ClientConfig } from 'pg';

/** P5: one text form for the snapshot, re-reads and the stream, whatever role, database or process ask for. */
const TEXT_FORM =
  '-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=3 -c bytea_output=hex -c statement_timeout=0';

export type TextRow = readonly (string | null)[];

export function sessionConfig(connectionString: string, name: string): ClientConfig {
  return {
    ...connectionConfig(connectionString),
    options: TEXT_FORM,
    application_name: `headwater.cdc.${name}`,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
  };
}

/** Opens an ordinary session. The caller owns it and ends it. */
export async function openSession(connectionString: string, name: string): Promise<Client> {
  return connected(new Client(sessionConfig(connectionString, name)));
}

/** Opens a session that takes replication commands (simple queries only). */
export async function openReplicationSession(connectionString: string, name: string): Promise<Client> {
  const config: ClientConfig & { replication: 'database' } = {
    ...sessionConfig(connectionString, name),
    replication: 'database',
  };
  return connected(new Client(config));
}

async function connected(client: Client): Promise<Client> {
  // A lost idle session rejects its next query; without a listener it would end the process.
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Runs a query and returns every value as the text Postgres printed. */
export async function textRows(client: Client, text: string, values?: readonly unknown[]): Promise<readonly TextRow[]> {
  const result = await client.query<(string | null)[]>({
    text,
    rowMode: 'array',
    types: { getTypeParser: () => (value: string) => value },
    ...(values === undefined ? {} : { values: [...values] }),
  });
  return result.rows;
}

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
