import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { atomicDirectory } from './atomic-directory.js';
import { freePort } from './free-port.js';
import { endOrphan } from './pid-file.js';
import { ensurePostgresUser, postgresBinaries, type PostgresBinaries, type UserIds } from './postgres-binaries.js';
import { runCommand } from './run-command.js';
import { ServerProcess } from './server-process.js';
import { ServicesError } from './testing.errors.js';

export interface EmbeddedPostgresOptions {
  /** Absolute directory of this cluster's data, settings, log and pid file. */
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  /** Settings of postgresql.conf that replace the defaults; kept only for this start. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  readonly server: ServerProcess;
  readonly databaseUrl: string;
}

/** Starts a Postgres with logical decoding on loopback; initialised once, reused afterwards, port kept when it is free. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, env } = options;
  const binaries = await postgresBinaries();
  if (!binaries)
    throw new ServicesError('SERVICES_UNAVAILABLE', 'No Postgres binaries for this platform. Run `npm ci`.');
  const user = await ensurePostgresUser();
  mkdirSync(directory, { recursive: true });
  const pidFile = join(directory, 'postgres.pid');
  await endOrphan(pidFile, { signal: 'SIGINT' });
  const data = join(directory, 'data');
  const passwordFile = join(directory, 'password');
  await atomicDirectory(data, (temporary) => initialise({ temporary, passwordFile, binaries, user, env }));
  const password = readFileSync(passwordFile, 'utf8').trim();
  const portFile = join(directory, 'port');
  const port = await freePort(existsSync(portFile) ? Number(readFileSync(portFile, 'utf8')) : undefined);
  writeFileSync(portFile, String(port));
  writeSettings(join(data, 'headwater.conf'), { ...DEFAULT_SETTINGS, port: String(port), ...options.settings }, user);
  const urlOf = (database: string): string => `postgres://postgres:${password}@127.0.0.1:${port}/${database}`;
  const server = new ServerProcess({
    name: 'Postgres',
    port,
    pidFile,
    logFile: join(directory, 'postgres.log'),
    command: binaries.postgres,
    args: ['-D', data],
    env,
    ...user,
    // Fast shutdown: SIGTERM would wait for every client to leave.
    stopSignal: 'SIGINT',
    startTimeoutMs: 60_000,
    ready: () => answers(urlOf('postgres')),
  });
  await server.start();
  await ensureDatabase(urlOf('postgres'), DATABASE);
  return { server, databaseUrl: urlOf(DATABASE) };
}

const DATABASE = 'headwater';

const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '30',
  max_replication_slots: '30',
  max_connections: '200',
  fsync: 'on',
  shared_buffers: '64MB',
};

async function initialise(options: {
  readonly temporary: string;
  readonly passwordFile: string;
  readonly binaries: PostgresBinaries;
  readonly user: UserIds | undefined;
  readonly env: NodeJS.ProcessEnv;
}): Promise<void> {
  const { temporary, passwordFile, binaries, user, env } = options;
  const password = randomBytes(12).toString('hex');
  writeFileSync(passwordFile, password, { mode: 0o600 });
  for (const path of [temporary, passwordFile]) if (user) chownSync(path, user.uid, user.gid);
  for (const binary of [binaries.initdb, binaries.postgres]) chmodIfNeeded(binary);
  const result = await runCommand(
    binaries.initdb,
    [
      `--pgdata=${temporary}`,
      '--username=postgres',
      '--auth=scram-sha-256',
      `--pwfile=${passwordFile}`,
      '--encoding=UTF8',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--locale=C',
    ],
    // A directory that the user postgres may enter: initdb warns about any other.
    { env, ...user, cwd: user ? '/' : dirname(temporary) },
  );
  if (result.exitCode !== 0) {
    const hint = user
      ? ' As root, Postgres runs as the user postgres, who must be able to enter every parent directory of the checkout.'
      : '';
    throw new ServicesError('SERVICES_START_FAILED', `initdb failed.${hint}\n${result.output}`);
  }
  // An include: the file behind it is written anew at each start, postgresql.conf stays as initdb made it.
  appendFileSync(join(temporary, 'postgresql.conf'), "\ninclude 'headwater.conf'\n");
}

function writeSettings(file: string, settings: Readonly<Record<string, string>>, user: UserIds | undefined): void {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
  rmSync(file, { force: true });
  writeFileSync(file, lines.join(''), { mode: 0o600 });
  if (user) chownSync(file, user.uid, user.gid);
}

function chmodIfNeeded(file: string): void {
  try {
    chmodSync(file, 0o755);
  } catch {
    // A read-only installation keeps the modes it has; initdb tells when they do not do.
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function ensureDatabase(url: string, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
}
