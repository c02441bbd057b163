// Log: transactional produce, committed read and small transactions, against stock kafkajs and the Java client.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

/** More of them show the Java client when its just-in-time compiler is done: it takes some ten rounds. */
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const PER_TRANSACTION = 2_000;
const PRODUCE_TRANSACTIONS = 400;
const READ_RECORDS = 2_000_000;
/** Small transactions per round; stock kafkajs needs some 100 ms for one. */
const LATENCY_TRANSACTIONS = { ours: 300, kafkajs: 60, java: 150 };

export default async function run({ kafkaBrokers, root, log }) {
  const load = (path) => import(pathToFileURL(join(root, path)).href);
  const { kafkaLog } = await load('packages/kafka/dist/index.js');
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  const contestants = [];
  try {
    const topics = ['read', 'ours', 'kafkajs', 'java'].map((name) => `bench.log.${name}`);
    await kafka.admin.ensureTopics(topics.map((topic) => ({ topic, partitions: 4, cleanupPolicy: 'delete' })));
    for await (const contestant of start({ kafkaBrokers, root, log, load })) contestants.push(contestant);
    const [ours] = contestants;
    await ours.run('produce', 'bench.log.read', READ_RECORDS / PER_TRANSACTION, PER_TRANSACTION);
    const results = new Map(contestants.map(({ name }) => [name, { produce: [], read: [], latency: [] }]));
    // Round 0 warms up: just-in-time compilers, caches, connections.
    for (let round = 0; round <= ROUNDS; round++) {
      log(round === 0 ? 'warming up' : `round ${round} of ${ROUNDS}`);
      for (const [what, command] of Object.entries(COMMANDS)) {
        // Every second round the other way round: none of them always runs after the same one.
        for (const contestant of round % 2 === 0 ? contestants : contestants.toReversed()) {
          const figures = await contestant.run(...command(contestant.name));
          if (round > 0) results.get(contestant.name)[what].push(figures);
        }
      }
    }
    return summary(results);
  } finally {
    for (const contestant of contestants) contestant.stop();
    await kafka.close();
  }
}

const COMMANDS = {
  produce: (name) => ['produce', `bench.log.${name}`, PRODUCE_TRANSACTIONS, PER_TRANSACTION],
  read: () => ['read', 'bench.log.read', READ_RECORDS],
  latency: (name) => ['latency', `bench.log.${name}`, `bench-${name}`, LATENCY_TRANSACTIONS[name]],
};

async function* start({ kafkaBrokers, root, log, load }) {
  const brokers = kafkaBrokers.join(',');
  const node = (name) => contestant(name, process.execPath, [join(root, `bench/log/${name}.mjs`), brokers, root, name]);
  yield node('ours');
  yield node('kafkajs');
  const distribution = await load('packages/testing/dist/kafka-distribution.js');
  const { KAFKA_VERSIONS, javaCommand, kafkaClassPath, missingForKafka } = distribution;
  const missing = await missingForKafka(process.env);
  if (missing.length > 0) {
    log(`Without the Java client: ${missing.join(', ')}`);
    return;
  }
  const classPath = await kafkaClassPath(process.env, KAFKA_VERSIONS.default, log);
  const program = join(root, 'bench/java/LogBench.java');
  const quiet = '-Dorg.slf4j.simpleLogger.defaultLogLevel=error';
  yield contestant('java', javaCommand(process.env), [quiet, '-cp', classPath, program, brokers, 'java']);
}

/** A process that runs one command after the other and answers each with a line of JSON. */
function contestant(name, command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  let answer;
  let failure;
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line.startsWith('{')) answer.resolve(JSON.parse(line));
  });
  const failed = (why) => {
    failure = new Error(`${name} ended: ${why}`);
    answer?.reject(failure);
  };
  child.on('error', failed).on('exit', (code) => failed(`exit code ${code}`));
  return {
    name,
    run(...line) {
      return new Promise((resolve, reject) => {
        if (failure !== undefined) return reject(failure);
        answer = { resolve, reject };
        child.stdin.write(`${JSON.stringify(line)}\n`);
      });
    },
    stop: () => child.kill(),
  };
}

function summary(results) {
  const figures = Object.fromEntries([...results].map(([name, of]) => [name, figuresOf(of)]));
  const { ours, ...peers } = figures;
  const ratios = {};
  for (const [name, peer] of Object.entries(peers)) {
    ratios[`produce vs ${name}`] = round(ours.produceRecordsPerSecond / peer.produceRecordsPerSecond);
    ratios[`read vs ${name}`] = round(ours.readRecordsPerSecond / peer.readRecordsPerSecond);
    ratios[`p50 of ${name} vs ours`] = round(peer.p50Ms / ours.p50Ms);
    ratios[`p99 of ${name} vs ours`] = round(peer.p99Ms / ours.p99Ms);
  }
  const setup = { rounds: ROUNDS, valueBytes: 200, perTransaction: PER_TRANSACTION, partitions: 4, brokers: 1 };
  return {
    setup: { ...setup, produced: PRODUCE_TRANSACTIONS * PER_TRANSACTION, read: READ_RECORDS },
    ours,
    peers,
    ratios,
  };
}

/** Medians over the rounds; percentiles over the transactions of all rounds. */
function figuresOf({ produce, read, latency }) {
  const produced = PRODUCE_TRANSACTIONS * PER_TRANSACTION;
  const milliseconds = latency.flatMap((of) => of.milliseconds);
  const transactions = milliseconds.length / latency.length;
  return {
    produceRecordsPerSecond: Math.round(produced / median(produce.map(({ seconds }) => seconds))),
    produceCpuMicrosPerRecord: round((median(produce.map(({ cpuSeconds }) => cpuSeconds)) * 1e6) / produced),
    readRecordsPerSecond: Math.round(READ_RECORDS / median(read.map(({ seconds }) => seconds))),
    readCpuMicrosPerRecord: round((median(read.map(({ cpuSeconds }) => cpuSeconds)) * 1e6) / READ_RECORDS),
    p50Ms: round(percentile(milliseconds, 0.5)),
    p99Ms: round(percentile(milliseconds, 0.99)),
    cpuMicrosPerTransaction: Math.round((median(latency.map(({ cpuSeconds }) => cpuSeconds)) * 1e6) / transactions),
  };
}

function median(values) {
  return percentile(values, 0.5);
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function round(value) {
  return Math.round(value * 100) / 100;
}
