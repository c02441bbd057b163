// npm test: installs, builds, starts its own servers, runs jest, stops everything. The last line is `N passed, N failed`.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { log, prepare, report, root, whenOrphaned } from './prepare.mjs';

const state = join(root, '.headwater');
// `npm run conformance` reads the results of a whole run: a part of it (npm test -- …) writes beside them.
const partial = process.argv.slice(2).some((argument) => !argument.startsWith('-'));
const resultsFile = join(state, partial ? 'test-results-partial.json' : 'test-results.json');
const directory = join(state, `test-${process.pid}`);

let jest;
let interrupted = false;
let buildFailures = 0;
const interrupt = () => {
  interrupted = true;
  jest?.kill('SIGTERM');
};
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, interrupt);
whenOrphaned(interrupt);
const { exitCode, line } = await main().catch((error) => ({ exitCode: report(error), line: '0 passed, 1 failed' }));
// Written to the end before exit: the line is what callers read.
process.stdout.write(`${line}\n`, () => process.exit(interrupted ? 130 : exitCode));

async function main() {
  mkdirSync(state, { recursive: true });
  rmSync(resultsFile, { force: true });
  await prepare().catch((error) => {
    // Jest compiles the sources itself: a type error in one package must not hide what the tests of the others say.
    if (!error.buildFailed || !existsSync(join(root, 'packages', 'testing', 'dist', 'index.js'))) throw error;
    report(error);
    buildFailures = 1;
  });
  const { devServices } = await import('@headwater/testing');
  await removeLeftovers();
  if (interrupted) return summary();
  const services = await devServices({ directory, fresh: true, preferContainers: true, log });
  try {
    if (!interrupted) await runJest(services);
  } finally {
    await services.stop();
    rmSync(directory, { recursive: true, force: true });
  }
  return summary();
}

/** A killed run leaves its directory, and where the system does not bind them to it, its servers. */
async function removeLeftovers() {
  const { endOrphans } = await import('@headwater/testing');
  for (const name of readdirSync(state)) {
    const pid = Number(/^test-(\d+)$/.exec(name)?.[1] ?? 0);
    if (pid === 0 || pid === process.pid) continue;
    try {
      await endOrphans(join(state, name));
    } catch (error) {
      // Another run in this checkout is alive: its servers are its own.
      if (error?.code === 'SERVICES_IN_USE') continue;
      throw error;
    }
    // Without servers it may be a run that is just starting.
    if (!alive(pid)) rmSync(join(state, name), { recursive: true, force: true });
  }
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function runJest(services) {
  const bin = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  const args = ['--experimental-vm-modules', bin];
  args.push('--json', `--outputFile=${resultsFile}`, ...process.argv.slice(2));
  return new Promise((resolve, reject) => {
    jest = spawn(process.execPath, args, {
      cwd: root,
      // Jest's JSON goes to the file, its report to stderr.
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        DATABASE_URL: services.databaseUrl,
        KAFKA_BROKERS: services.kafkaBrokers.join(','),
      },
    });
    jest.once('error', reject);
    jest.once('exit', resolve);
  });
}

function summary() {
  if (!existsSync(resultsFile)) return { exitCode: 1, line: '0 passed, 1 failed' };
  const results = JSON.parse(readFileSync(resultsFile, 'utf8'));
  const passed = results.numPassedTests;
  // A suite that does not load has no tests to fail: it counts as one.
  const unloaded = results.testResults.filter(
    (suite) => suite.status === 'failed' && !suite.assertionResults.some((test) => test.status === 'failed'),
  );
  const failed = results.numFailedTests + unloaded.length + buildFailures;
  const skipped = results.numPendingTests + results.numTodoTests;
  if (passed + failed === 0) log('No test ran.');
  const ok = failed === 0 && passed > 0 && results.success;
  return {
    exitCode: ok ? 0 : 1,
    line: `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`,
  };
}
