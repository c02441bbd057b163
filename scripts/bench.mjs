// npm run bench lists the benchmarks; npm run bench -- NAME [--json] runs bench/NAME.bench.mjs on fresh servers.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { log, prepare, report, root, usage } from './prepare.mjs';

const SUFFIX = '.bench.mjs';
/** As Kafka's own start script runs a broker: the default of the dev services starts sooner and is slower for good. */
const KAFKA_JVM_FLAGS = [
  '-Xms1g',
  '-Xmx1g',
  '-XX:-UseSerialGC',
  '-XX:+UseG1GC',
  '-XX:TieredStopAtLevel=4',
  '-XX:MaxGCPauseMillis=20',
  '-XX:InitiatingHeapOccupancyPercent=35',
  '-XX:+ExplicitGCInvokesConcurrent',
];
const folder = join(root, 'bench');

let interrupted = false;
let stop = async () => undefined;
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    if (interrupted) return;
    interrupted = true;
    void stop().finally(() => process.exit(130));
  });
}
const exitCode = await main(process.argv.slice(2)).catch(report);
process.stdout.write('', () => process.exit(interrupted ? 130 : exitCode));

async function main(args) {
  const json = args.includes('--json');
  const names = args.filter((arg) => !arg.startsWith('--'));
  if (names.length === 0) {
    for (const name of list()) console.log(`${name.padEnd(16)} ${firstComment(fileOf(name))}`);
    return 0;
  }
  const [name] = names;
  if (names.length > 1 || !list().includes(name)) {
    throw usage(`Unknown benchmark ${names.join(' ')}. There are: ${list().join(', ') || 'none'}.`);
  }
  await prepare();
  const { devServices } = await import('@headwater/testing');
  const directory = join(root, '.headwater', `bench-${process.pid}`);
  const services = await devServices({ directory, fresh: true, log, kafkaJvmFlags: KAFKA_JVM_FLAGS });
  let stopped;
  stop = () => (stopped ??= services.stop().finally(() => rmSync(directory, { recursive: true, force: true })));
  try {
    if (interrupted) return 130;
    const { default: run } = await import(pathToFileURL(fileOf(name)).href);
    const { databaseUrl, kafkaBrokers } = services;
    const result = { bench: name, ...(await run({ databaseUrl, kafkaBrokers, root, log })) };
    if (json) console.log(JSON.stringify(result));
    else print(result);
    return 0;
  } finally {
    await stop();
  }
}

function list() {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith(SUFFIX))
    .map((file) => file.slice(0, -SUFFIX.length))
    .sort();
}

function fileOf(name) {
  return join(folder, `${name}${SUFFIX}`);
}

function firstComment(file) {
  const line = readFileSync(file, 'utf8').split('\n', 1)[0];
  return line.startsWith('//') ? line.slice(2).trim() : '';
}

/** One row per figure, one column per contestant. */
function print({ bench, setup, ours, peers = {}, ratios = {} }) {
  console.log(
    `${bench}  ${Object.entries(setup ?? {})
      .map(([key, value]) => `${key}=${show(value)}`)
      .join(' ')}`,
  );
  const columns = { ours, ...peers };
  const figures = [...new Set(Object.values(columns).flatMap((column) => Object.keys(column ?? {})))];
  console.log(row('figure', Object.keys(columns)));
  for (const figure of figures) {
    const cells = Object.values(columns).map((column) => (column?.[figure] === undefined ? '-' : show(column[figure])));
    console.log(row(figure, cells));
  }
  for (const [name, ratio] of Object.entries(ratios)) console.log(`ratio ${name}: ${show(ratio)}`);
}

function row(figure, cells) {
  return [figure.padEnd(28), ...cells.map((cell) => cell.padEnd(20))].join('');
}

function show(value) {
  if (typeof value === 'number') return String(Math.round(value * 100) / 100);
  return typeof value === 'string' ? value : JSON.stringify(value);
}
