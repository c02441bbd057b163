import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { devServices, type DevServices } from './dev-services.js';
import { kafkaAnswers } from './kafka-answers.js';
import { identify } from './process-identity.js';
import { testDatabase } from './test-database.js';

// Not below a private temporary directory: the user postgres must be able to enter it. Named so that npm test sweeps it.
const directory = resolve('.headwater', `test-${process.pid}`);
let services: DevServices;

beforeAll(async () => {
  services = await devServices({ directory, mode: 'embedded' });
  await query(services.databaseUrl, 'CREATE TABLE kept (id int)');
});

afterAll(async () => {
  await services.stop();
  rmSync(directory, { recursive: true, force: true });
});

it('offers logical decoding and fsync on loopback only', async () => {
  const rows = await query(
    services.databaseUrl,
    "SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'fsync', 'listen_addresses') ORDER BY name",
  );
  expect(rows.map(({ setting }) => setting)).toEqual(['on', '127.0.0.1', 'logical']);
});

it('refuses a second owner of a directory in use', async () => {
  await expect(devServices({ directory, mode: 'embedded' })).rejects.toThrow(/SERVICES_IN_USE/);
});

it('kills and restarts each server on the same port and data', async () => {
  for (const server of [services.postgres, services.kafka]) {
    const { pid, port } = server;
    await server.kill();
    expect(identify(pid ?? 0)).toBeUndefined();
    await server.start();
    expect(server.port).toBe(port);
    expect(server.pid).not.toBe(pid);
  }
  expect(await query(services.databaseUrl, 'SELECT * FROM kept')).toEqual([]);
  expect(await kafkaAnswers(services.kafka.port)).toBe(true);
});

it('drops a test database together with its slots and sessions', async () => {
  const database = await testDatabase(services.databaseUrl);
  await query(database.url, "SELECT pg_create_logical_replication_slot('left', 'pgoutput')");
  const session = new pg.Client({ connectionString: database.url });
  session.on('error', () => undefined);
  await session.connect();
  await database.drop();
  await database.drop();
  expect(await query(services.databaseUrl, 'SELECT slot_name FROM pg_replication_slots')).toEqual([]);
  const name = new URL(database.url).pathname.slice(1);
  expect(await query(services.databaseUrl, `SELECT 1 FROM pg_database WHERE datname = '${name}'`)).toEqual([]);
});

it('G107 ends the servers of a killed parent at the next start and keeps their data', async () => {
  await services.stop();
  const parent = spawn(process.execPath, ['--input-type=module', '-e', PARENT, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface(parent.stdout), 'line')) as [string];
  const pids = JSON.parse(line) as number[];
  const exited = once(parent, 'exit');
  parent.kill('SIGKILL');
  await exited;
  services = await devServices({ directory, mode: 'embedded' });
  expect(pids.map((pid) => identify(pid))).toEqual([undefined, undefined]);
  expect(await query(services.databaseUrl, 'SELECT id FROM kept')).toEqual([{ id: 107 }]);
});

/** Runs the built package, as npm start does. */
const PARENT = `
import { devServices } from ${JSON.stringify(resolve('packages/testing/dist/index.js'))};
import pg from ${JSON.stringify(resolve('node_modules/pg/esm/index.mjs'))};
const services = await devServices({ directory: process.argv[1], mode: 'embedded' });
const client = new pg.Client({ connectionString: services.databaseUrl });
await client.connect();
await client.query('INSERT INTO kept VALUES (107)');
console.log(JSON.stringify([services.postgres.pid, services.kafka.pid]));
setInterval(() => {}, 1000);
`;

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}
