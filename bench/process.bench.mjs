// Process: records/s of a running sum and count per key (2,000,000 records of 200 B, 100,000 keys, exactly once), and its latency at 2,000/s; beside Kafka Streams.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createInterface } from 'node:readline';

const ROUNDS = 3;
const RECORDS = 2_000_000;
/** Of the round that warms up. */
const WARM_RECORDS = 500_000;
const KEYS = 100_000;
const PARTITIONS = 4;
const RATE = 2_000;
const WARM_SECONDS = 5;
const SECONDS = 20;
/** Kafka Streams' default. */
const PEER_CACHE_BYTES = 10_485_760;

/** Medians over the rounds. Both take turns on one broker, every second round the other way round, after a shorter round of warming up. */
export default async function run({ kafkaBrokers, root, log }) {
  const { kafkaLog } = await import(join(root, 'packages/kafka/dist/index.js'));
  const { streamsPeer } = await import(pathToFileURL(join(root, 'bench/java/streams-peer.mjs')).href);
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  const directory = mkdtempSync(join(tmpdir(), 'headwater-bench-process-'));
  const workers = new Set();
  const start = (...args) => {
    const command = [join(root, 'bench/process/worker.mjs'), kafkaBrokers.join(','), ...args.map(String)];
    const child = spawn(process.execPath, command, { stdio: ['pipe', 'pipe', 'inherit'] });
    workers.add(child);
    child.once('exit', () => workers.delete(child));
    return child;
  };
  try {
    const peer = await streamsPeer({ root, kafkaBrokers, directory, log });
    const contestants = {
      ours: {
        sums: (input, records) => oursSums(kafka, start, input, records),
        steady: () => oursSteady(kafka, start),
      },
      ...(peer && {
        streams: {
          sums: (input, records) => peerSums(kafka, peer, input, records),
          steady: () => peerSteady(peer),
        },
      }),
    };
    for (const [input, records] of [
      ['warm-in', WARM_RECORDS],
      ['bench-in', RECORDS],
    ]) {
      log(`writing ${records} records`);
      await kafka.admin.ensureTopics([{ topic: input, partitions: PARTITIONS, cleanupPolicy: 'delete' }]);
      await fill(kafka, input, records);
    }
    const results = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
    for (let round = 0; round <= ROUNDS; round++) {
      log(round === 0 ? 'warming up' : `round ${round} of ${ROUNDS}`);
      const inTurn = Object.entries(contestants);
      if (round % 2 === 0) inTurn.reverse();
      for (const [name, { sums, steady }] of inTurn) {
        if (round === 0) await sums('warm-in', WARM_RECORDS);
        else results[name].push({ ...(await sums('bench-in', RECORDS)), ...(await steady()) });
        if (round > 0) log(`${name} ${JSON.stringify(results[name].at(-1))}`);
      }
    }
    const { ours, ...peers } = Object.fromEntries(Object.entries(results).map(([name, of]) => [name, medians(of)]));
    const setup = { rounds: ROUNDS, records: RECORDS, keys: KEYS, bytes: 200, partitions: PARTITIONS };
    return { setup: { ...setup, steadyPerSecond: RATE, exactlyOnce: true }, ours, peers };
  } finally {
    for (const child of workers) child.kill('SIGKILL');
    await kafka.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

let lives = 0;

async function oursSums(kafka, start, input, records) {
  const name = `bench-sum-${++lives}`;
  const made = await topics(kafka, name);
  const worker = start(name, input, `${name}-out`, records);
  const { seconds, cpuSeconds, peakRssMb, transactions } = await lineOf(worker);
  await stop(worker);
  const exact = await check(kafka, `${name}-out`, records);
  await kafka.admin.deleteTopics(made);
  return { ...rates(records, records / seconds, cpuSeconds), peakRssMb, transactions, exact };
}

async function oursSteady(kafka, start) {
  const name = `bench-steady-${++lives}`;
  const made = await topics(kafka, name);
  await kafka.admin.ensureTopics([{ topic: `${name}-in`, partitions: PARTITIONS, cleanupPolicy: 'delete' }]);
  const worker = start(name, `${name}-in`, `${name}-out`, 0);
  const latencies = await steadily(kafka, `${name}-in`, `${name}-out`);
  await stop(worker);
  await kafka.admin.deleteTopics([...made, `${name}-in`]);
  return { p50Ms: percentile(latencies, 0.5), p99Ms: percentile(latencies, 0.99) };
}

async function peerSums(kafka, peer, input, records) {
  const sums = await peer.run('agg', input, records, 2, PEER_CACHE_BYTES, await offsetsOf(kafka, input));
  return { ...rates(records, sums.recPerSec, sums.cpuSec), peakRssMb: sums.rssMb, exact: sums.exact };
}

async function peerSteady(peer) {
  const { p50ms, p99ms } = await peer.run('lat', RATE, SECONDS, 1, PEER_CACHE_BYTES);
  return { p50Ms: p50ms, p99Ms: p99ms };
}

function rates(records, perSecond, cpuSeconds) {
  const cpuMicrosPerRecord = Number(((cpuSeconds / records) * 1e6).toFixed(2));
  return { recordsPerSecond: Math.round(perSecond), cpuMicrosPerRecord };
}

/** Figure by figure; `exact` only if each of them was. */
function medians(results) {
  const { exact: _, ...figures } = results[0];
  const of = (figure) =>
    percentile(
      results.map((result) => result[figure]).sort((a, b) => a - b),
      0.5,
    );
  const median = Object.fromEntries(Object.keys(figures).map((figure) => [figure, of(figure)]));
  return { ...median, exact: results.every(({ exact }) => exact) };
}

/** Committed by a consumer that has read all records: every offset but the last marker of each partition. */
async function offsetsOf(kafka, topic) {
  const offsets = await kafka.admin.offsets(topic);
  return offsets.reduce((sum, { lastStable }) => sum + lastStable - 1, 0);
}

/** Of one life of the processor, but for its input. Their names. */
async function topics(kafka, name) {
  const made = {
    [`${name}-out`]: 'compact',
    [`headwater.${name}.state`]: 'compact',
    [`headwater.${name}.parked`]: 'delete',
  };
  const specs = Object.entries(made).map(([topic, cleanupPolicy]) => ({
    topic,
    partitions: PARTITIONS,
    cleanupPolicy,
  }));
  await kafka.admin.ensureTopics(specs);
  return Object.keys(made);
}

const keyOf = (i) => Buffer.from(`k${String(Math.floor(i * 2654435.761) % KEYS).padStart(8, '0')}`);

function valueOf(i, ts) {
  const head = `{"id":"${i}","amount":${i % 100},"ts":${ts},"pad":"`;
  return Buffer.from(`${head}${'x'.repeat(198 - head.length)}"}`);
}

async function fill(kafka, topic, total) {
  const writer = kafka.writer({ transactionalId: `bench-fill-${topic}`, transactionTimeoutMs: 60_000 });
  await writer.fence();
  for (let from = 0; from < total; from += 20_000) {
    const records = Array.from({ length: 20_000 }, (_, n) => ({
      topic,
      key: keyOf(from + n),
      value: valueOf(from + n, 0),
    }));
    const end = await writer.transact(records);
    if (end.outcome !== 'committed') throw end.cause;
  }
  await writer.close();
}

/** The last output of every key against the sums over the input. */
async function check(kafka, topic, records) {
  const wanted = new Map();
  for (let i = 0; i < records; i++) {
    const key = keyOf(i).toString();
    const of = wanted.get(key) ?? [0, 0];
    wanted.set(key, [of[0] + (i % 100), of[1] + 1]);
  }
  const last = new Map();
  let outputs = 0;
  await readAll(kafka, topic, ({ key, value }) => {
    outputs++;
    last.set(key.toString(), value);
  });
  if (outputs !== records) throw new Error(`${outputs} outputs for ${records} records`);
  for (const [key, [sum, count]] of wanted) {
    const found = JSON.parse(last.get(key)?.toString() ?? '{}');
    if (found.sum !== sum || found.count !== count)
      throw new Error(`${key}: wanted ${sum}/${count}, found ${found.sum}/${found.count}`);
  }
  return last.size === wanted.size;
}

async function readAll(kafka, topic, each) {
  const reader = kafka.reader();
  const ends = new Map();
  for (const { partition, start, lastStable } of await kafka.admin.offsets(topic)) {
    reader.seek(topic, partition, start);
    if (lastStable > start) ends.set(partition, lastStable);
  }
  while (ends.size > 0) {
    for (const batch of await reader.poll()) {
      batch.records.forEach(each);
      if (batch.nextOffset >= ends.get(batch.partition)) ends.delete(batch.partition);
    }
  }
  await reader.close();
}

/** Milliseconds from the time in the input record to its committed output, both on this machine's clock. */
async function steadily(kafka, input, output) {
  const latencies = [];
  let ends = false;
  const reader = kafka.reader();
  for (let partition = 0; partition < PARTITIONS; partition++) reader.seek(output, partition, 0);
  let measureFrom = Infinity;
  const reading = (async () => {
    while (!ends) {
      for (const { records } of await reader.poll({ maxWaitMs: 100 })) {
        const now = Date.now();
        for (const { value } of records) {
          const { ts } = JSON.parse(value.toString());
          if (ts >= measureFrom) latencies.push(now - ts);
        }
      }
    }
  })();
  // Plain sends, as the peer's: the time of a transaction in front of the input would not be the processor's.
  const producer = kafka.producer();
  const startedAt = performance.now();
  const total = RATE * (WARM_SECONDS + SECONDS);
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, Math.floor(((performance.now() - startedAt) * RATE) / 1000));
    if (due <= sent) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    if (sent >= RATE * WARM_SECONDS && measureFrom === Infinity) measureFrom = Date.now();
    const records = [];
    const now = Date.now();
    for (; sent < due; sent++) records.push({ topic: input, key: keyOf(sent), value: valueOf(sent, now) });
    await producer.send(records);
  }
  await producer.close();
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  ends = true;
  await reading;
  await reader.close();
  if (latencies.length < 0.99 * RATE * SECONDS) throw new Error(`only ${latencies.length} outputs were read`);
  return latencies.sort((a, b) => a - b);
}

async function lineOf(child) {
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, 'line'),
    once(child, 'exit').then(([code]) => {
      throw new Error(`the worker ended with ${code}`);
    }),
  ]);
  return JSON.parse(line);
}

async function stop(child) {
  const ended = once(child, 'exit');
  child.stdin.end();
  await ended;
}

const percentile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
