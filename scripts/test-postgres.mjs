// npm run test:postgres -- --postgres 15 [jest arguments]: the specs of capture on a PostgreSQL of the system, the other servers as npm test has them.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { log, report, root, usage, whenOrphaned } from './prepare.mjs';

const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: 30,
  max_replication_slots: 30,
  max_connections: 200,
  shared_buffers: '64MB',
};

const PASSWORD = randomBytes(12).toString('hex');

const exitCode = await main(process.argv.slice(2)).catch(report);
process.exit(exitCode);

async function main(args) {
  const at = args.indexOf('--postgres');
  const version = at < 0 ? '15' : args[at + 1];
  if (!/^\d+$/.test(version ?? '')) throw usage('Type: npm run test:postgres -- --postgres 15 [jest arguments]');
  const rest = at < 0 ? args : args.filter((_, i) => i !== at && i !== at + 1);
  const paths = rest.some((argument) => !argument.startsWith('-')) ? rest : ['packages/cdc/src', ...rest];
  const server = await start(version, installed(version));
  whenOrphaned(() => server.stop());
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => server.stop());
  try {
    return await run(paths, { ...process.env, DATABASE_URL: server.url });
  } finally {
    await server.stop();
  }
}

/** The directory of the binaries; Debian's package is installed when it is missing. */
function installed(version) {
  const bin = `/usr/lib/postgresql/${version}/bin`;
  if (existsSync(join(bin, 'postgres'))) return bin;
  log(`Installing postgresql-${version} (apt-get)`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  spawnSync('apt-get', ['install', '-y', '--no-install-recommends', `postgresql-${version}`], { env, stdio: 'ignore' });
  if (existsSync(join(bin, 'postgres'))) return bin;
  throw usage(
    `PostgreSQL ${version} is not in ${bin} and could not be installed. Type: apt-get install postgresql-${version}`,
  );
}

async function start(version, bin) {
  const directory = join(root, '.headwater', `postgres-${version}-${process.pid}`);
  mkdirSync(directory, { recursive: true });
  const user = postgresUser();
  if (user !== undefined) chownSync(directory, user.uid, user.gid);
  const data = join(directory, 'data');
  const as = { ...user, cwd: '/', encoding: 'utf8' };
  const passwordFile = join(directory, 'password');
  // As in a real installation: with trust a wrong password would be taken for the right one.
  writeFileSync(passwordFile, PASSWORD);
  const choices = ['-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '-U', 'postgres', '-E', 'UTF8', '--locale=C'];
  const made = spawnSync(join(bin, 'initdb'), ['-D', data, ...choices], as);
  if (made.status !== 0) throw usage(`initdb failed: ${made.stderr}`);
  const port = await freePort();
  const lines = Object.entries({ ...SETTINGS, port }).map(([name, value]) => `${name} = '${value}'\n`);
  writeFileSync(join(data, 'postgresql.auto.conf'), lines.join(''));
  const child = spawn(join(bin, 'postgres'), ['-D', data], { ...as, stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const url = `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`;
  const stop = async () => {
    child.kill('SIGINT'); // fast: does not wait for clients
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  const ready = () => spawnSync(join(bin, 'pg_isready'), ['-h', '127.0.0.1', '-p', String(port)]).status === 0;
  for (let tries = 0; !ready(); tries++) {
    if (tries === 100 || child.exitCode !== null) {
      await stop();
      throw usage(`PostgreSQL ${version} did not start in ${directory}.`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  log(`PostgreSQL ${version} on port ${port}`);
  return { url, stop };
}

/** PostgreSQL refuses to run as root. */
function postgresUser() {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag) => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout.trim());
  const [uid, gid] = [id('-u'), id('-g')];
  if (!(uid > 0)) throw usage('As root a user postgres is needed. Type: useradd postgres');
  return { uid, gid };
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

function run(args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, 'scripts', 'test.mjs'), ...args], {
      cwd: root,
      env,
      stdio: 'inherit',
    });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}
