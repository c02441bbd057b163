// npm run simulate -- [--seeds N] [--seed S] [--capture]: the process engine, or captures, in virtual time under seeds S to S+N-1. Prints the first
// that fails, and its trace.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, 'packages', 'testing', 'dist', 'simulation', 'simulate.js');

process.exitCode = await main();

async function main() {
  if (!existsSync(built)) return fail('The packages are not built. Run `npm run build` first.');
  const seeds = numberAfter('--seeds', 10_000);
  const first = numberAfter('--seed', 1);
  if (seeds === undefined || first === undefined) return fail('--seeds and --seed take whole numbers.');
  if (process.argv.includes('--capture')) return captures(seeds, first);
  const { simulate } = await import(built);
  const seen = new Map();
  const startedAt = performance.now();
  for (let seed = first; seed < first + seeds; seed++) {
    const run = await simulate(seed);
    for (const [what, count] of run.seen) seen.set(what, (seen.get(what) ?? 0) + count);
    if (run.wrong.length > 0) return report(run);
    if ((seed - first + 1) % 1_000 === 0) console.log(`${seed - first + 1} of ${seeds} seeds`);
  }
  for (const what of [...seen.keys()].sort((a, b) => (a < b ? -1 : 1)))
    console.log(`${String(seen.get(what)).padStart(9)}  ${what}`);
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
  console.log(`${seeds} seeds from ${first} in ${seconds} s: exactly f(input) under each.`);
  return 0;
}

/** What simulates captures is no part of the built packages: it runs as its spec does. */
function captures(seeds, first) {
  const jest = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  const spec = ['packages/cdc/src/simulation/simulation.spec.ts', '-t', 'once and in order under each'];
  const env = { ...process.env, CAPTURE_SEEDS: String(seeds), CAPTURE_FIRST_SEED: String(first) };
  const { status } = spawnSync(process.execPath, ['--experimental-vm-modules', jest, ...spec], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  return status ?? 1;
}

function report({ seed, wrong, trace }) {
  console.log(trace.join('\n'));
  console.log(`Seed ${seed} is wrong:\n${wrong.map((what) => `  - ${what}`).join('\n')}`);
  console.log(`Repeat it with: npm run simulate -- --seeds 1 --seed ${seed}`);
  return 1;
}

function numberAfter(name, otherwise) {
  const at = process.argv.indexOf(name);
  if (at < 0) return otherwise;
  const text = process.argv[at + 1] ?? '';
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function fail(message) {
  console.error(message);
  return 2;
}
