// npm start: installs, builds, starts Postgres and Kafka, runs the sample bank. Data stays in .headwater/dev; --fresh wipes it.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { log, prepare, report, root, usage, whenOrphaned } from './prepare.mjs';

const DRAIN_MS = 20_000;

let bank;
let stopping = false;
const stop = () => {
  if (!stopping) log('Stopping');
  stopping = true;
  if (bank) drain(bank);
};
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop);
whenOrphaned(stop);
process.exitCode = await main(process.argv.slice(2)).catch(report);
process.exit();

async function main(args) {
  const unknown = args.filter((arg) => arg !== '--fresh');
  if (unknown.length > 0) throw usage(`Unknown argument ${unknown.join(' ')}. Usage: npm start [-- --fresh]`);
  await prepare();
  if (stopping) return 0;
  const { devServices } = await import('@headwater/testing');
  const directory = join(root, '.headwater', 'dev');
  const services = await devServices({ directory, fresh: args.includes('--fresh'), log });
  try {
    if (stopping) return 0;
    log(`Postgres ${services.databaseUrl}`);
    log(`Kafka ${services.kafkaBrokers.join(',')} (${services.mode})`);
    return await runBank(services);
  } finally {
    await services.stop();
  }
}

function runBank(services) {
  return new Promise((resolve, reject) => {
    // Detached: Ctrl-C reaches this script alone, which then drains the bank before the servers. The channel tells the bank
    // when this script was killed.
    bank = spawn(process.execPath, ['--enable-source-maps', join(root, 'apps', 'sample-bank', 'dist', 'main.js')], {
      cwd: root,
      detached: true,
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      env: {
        ...process.env,
        DATABASE_URL: services.databaseUrl,
        KAFKA_BROKERS: services.kafkaBrokers.join(','),
        PORT: process.env.PORT || '3000',
      },
    });
    bank.once('error', reject);
    bank.once('exit', (code, signal) => {
      if (stopping) return resolve(0);
      log(`The bank ended by itself with ${signal ?? code}`);
      resolve(code ?? 1);
    });
  });
}

function drain(child) {
  child.kill('SIGTERM');
  setTimeout(() => child.kill('SIGKILL'), DRAIN_MS).unref();
}
