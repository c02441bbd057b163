// npm run soak:capture -- [--minutes M] [--rate R] [--seed S] [--fault-every SECONDS] [--max-rss MB] [--rss-noise MB] [--max-lag MB]: a capture under R changes a
// second for M minutes. Exit 1 when memory grows, WAL is held back, sockets, sessions or producers pile up, or a fold differs from its table. The last line is the result as JSON.
// The night: --minutes 480 --fault-every 60 --max-lag 512. Faults strike on a broker of their own.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { log, prepare, report, root, usage } from './prepare.mjs';

const exitCode = await main().catch(report);
process.stdout.write('', () => process.exit(exitCode));

async function main() {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '30' },
      rate: { type: 'string', default: '5000' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      'fault-every': { type: 'string', default: '0' },
      'max-rss': { type: 'string', default: '250' },
      // What memory may differ by without growing: beyond it a slope counts. A young process fills its heap.
      'rss-noise': { type: 'string', default: '10' },
      'max-lag': { type: 'string', default: '64' },
    },
  });
  const number = (name) => {
    if (!/^\d+(\.\d+)?$/.test(values[name])) throw usage(`--${name}: "${values[name]}" is not a number.`);
    return Number(values[name]);
  };
  const [minutes, rate, seed, faultEverySeconds] = ['minutes', 'rate', 'seed', 'fault-every'].map(number);
  const limits = { rssMb: number('max-rss'), lagMb: number('max-lag'), rssNoiseMb: number('rss-noise') };
  await prepare();
  const { devServices } = await import('@headwater/testing');
  const { captureSoak } = await import('../test/soundness/capture/soak.mjs');
  const directory = join(root, '.headwater', `soak-${process.pid}`);
  const services = await devServices({ directory, fresh: true, log });
  try {
    log(
      `Soak of capture: seed ${seed}, ${minutes} minutes, ${rate} changes/s, ${faultEverySeconds > 0 ? `a fault every ${faultEverySeconds} s` : 'no faults'}`,
    );
    const { wrong, ...result } = await captureSoak({ seed, minutes, rate, faultEverySeconds, limits, services, log });
    for (const line of wrong) log(line);
    console.log(JSON.stringify({ ...result, wrong }));
    return wrong.length === 0 ? 0 : 1;
  } finally {
    await services.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}
