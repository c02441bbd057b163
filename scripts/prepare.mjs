// Makes a fresh clone runnable: the packages of the lock file, then the build. Used by the other scripts; also runs alone.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export function log(line) {
  process.stderr.write(`[headwater] ${line}\n`);
}

/** Installs when node_modules does not belong to the lock file, then builds. Throws an error whose message can be shown. */
export async function prepare() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20) throw usage(`Node 20 or newer is needed, this is ${process.version}. See https://nodejs.org`);
  await install();
  await timed('Built', async () => {
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const { code, output } = await run(process.execPath, [tsc, '-b']);
    if (code !== 0) throw Object.assign(new Error(`The build failed (npx tsc -b):\n${output}`), { buildFailed: true });
  });
}

/** An error that ends a script with exit code 2: the caller has to change something. */
export function usage(message) {
  return Object.assign(new Error(message), { exitCode: 2 });
}

/** Calls `stop` once when the process that started this one is gone: a killed npm must not leave servers behind. */
export function whenOrphaned(stop) {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    stop();
  }, 500);
  watch.unref();
}

/** Prints the message of an error alone where it is meant for people, the whole error otherwise; returns the exit code. */
export function report(error) {
  const code = String(error?.code ?? '');
  const known = error?.exitCode !== undefined || code.startsWith('SERVICES_') || error?.constructor === Error;
  log(known ? error.message : (error?.stack ?? String(error)));
  if (error?.exitCode !== undefined) return error.exitCode;
  return code === 'SERVICES_UNAVAILABLE' || code === 'SERVICES_MODE' ? 2 : 1;
}

async function install() {
  const lockFile = join(root, 'package-lock.json');
  const stampFile = join(root, 'node_modules', '.headwater-lock');
  const hash = createHash('sha256').update(readFileSync(lockFile)).digest('hex');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === hash) return;
  if (!installed(lockFile)) {
    log('Installing packages (npm ci)');
    await timed('Installed', async () => {
      const npm = process.env.npm_execpath;
      const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error', '--include=dev', '--include=optional'];
      // Run through npm's own script where npm started us: `npm` may be a .cmd file.
      const { code, output } = npm?.endsWith('.js')
        ? await run(process.execPath, [npm, ...args])
        : await run('npm', args);
      if (code !== 0) throw new Error(`npm ci failed:\n${output}`);
    });
  }
  writeFileSync(stampFile, hash);
}

/** True when an earlier `npm install` left exactly what the lock file asks for. */
function installed(lockFile) {
  const hidden = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(hidden)) return false;
  const wanted = JSON.parse(readFileSync(lockFile, 'utf8')).packages;
  const found = JSON.parse(readFileSync(hidden, 'utf8')).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (!path.includes('node_modules/') || entry.optional || entry.devOptional || entry.peer) return true;
    return found[path] !== undefined && found[path].version === entry.version;
  });
}

async function timed(what, work) {
  const start = performance.now();
  await work();
  log(`${what} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, output: output.trimEnd() }));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await prepare();
  } catch (error) {
    process.exitCode = report(error);
  }
}
