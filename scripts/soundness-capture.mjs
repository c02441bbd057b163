// npm run soundness:capture -- [--seed S] [--kills K] [--tables T]: kill -9 of a capture under load, and the topics hold exactly what a trigger
// journal says was committed. On the servers of DATABASE_URL and KAFKA_BROKERS, or on its own. The last line is the result as JSON.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { log, prepare, report, root, usage } from './prepare.mjs';

const exitCode = await main().catch(report);
process.stdout.write('', () => process.exit(exitCode));

async function main() {
  const number = (value) => {
    if (value === undefined) return undefined;
    if (!/^\d+$/.test(value)) throw usage(`"${value}" is not a number.`);
    return Number(value);
  };
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      kills: { type: 'string', default: '100' },
      tables: { type: 'string' },
    },
  });
  const [seed, kills, tables] = [values.seed, values.kills, values.tables].map(number);
  await prepare();
  const { devServices } = await import('@headwater/testing');
  const { captureSoundness } = await import('../test/soundness/capture/run.mjs');
  const directory = join(root, '.headwater', `soundness-${process.pid}`);
  const services = await devServices({ directory, fresh: true, log });
  try {
    log(`Soundness of capture: seed ${seed}, ${kills} kills`);
    console.log(JSON.stringify(await captureSoundness({ seed, kills, tables, services, log })));
    return 0;
  } finally {
    await services.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}
