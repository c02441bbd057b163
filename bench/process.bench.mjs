// Process: records/s of a running sum and count per key (2,000,000 records of 200 B, 100,000 keys, exactly once), and its latency at 2,000/s; beside Kafka Streams.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createInterface } from 'node:readline';

const RECORDS = 2_000_000;
const KEYS = 100_000;
const PARTITIONS = 4;
const RATE = 2_000;
const WARM_SECONDS = 5;
const SECONDS = 20;
/** Kafka Streams' default. */
const PEER_CACHE_BYTES = 10_485_760;

export default async function run({ kafkaBrokers, root, log }) {
  const { kafkaLog } = await import(join(root, 'packages/kafka/dist/index.js'));
  const { streamsPeer } = await import(pathToFileURL(join(root, 'bench/java/streams-peer.mjs')).href);
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  const directory = mkdtempSync(join(tmpdir(), 'headwater-bench-process-'));
  const started = [];
  const worker = (name, input, output, records) => {
    const child = spawn(
      process.execPath,
      [join(root, 'bench/process/worker.mjs'), kafkaBrokers.join(','), name, input, output, String(records)],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    started.push(child);
    return child;
  };
  try {
    await topics(kafka, 'bench-sum', 'bench-in', 'bench-out');
    await topics(kafka, 'bench-steady', 'steady-in', 'steady-out');
    log(`writing ${RECORDS} records`);
    await fill(kafka, 'bench-in');
    const peer = await streamsPeer({ root, kafkaBrokers, directory, log });
    log('processing');
    const measured = await lineOf(worker('bench-sum', 'bench-in', 'bench-out', RECORDS));
    await stop(started.pop());
    const exact = await check(kafka, 'bench-out');
    if (peer !== undefined) log('processing with Kafka Streams');
    const sums = await peer?.run('agg', 'bench-in', RECORDS, 2, PEER_CACHE_BYTES, await offsetsOf(kafka, 'bench-in'));
    log(`steady at ${RATE}/s`);
    const steady = worker('bench-steady', 'steady-in', 'steady-out', 0);
    const latencies = await steadily(kafka, 'steady-in', 'steady-out');
    await stop(steady);
    const latency = await peer?.run('lat', RATE, SECONDS, 1, PEER_CACHE_BYTES);
    return {
      setup: {
        records: RECORDS,
        keys: KEYS,
        bytes: 200,
        partitions: PARTITIONS,
        steadyPerSecond: RATE,
        exactlyOnce: true,
      },
      ours: {
        recordsPerSecond: Math.round(RECORDS / measured.seconds),
        cpuMicrosPerRecord: Number(((measured.cpuSeconds / RECORDS) * 1e6).toFixed(2)),
        peakRssMb: measured.peakRssMb,
        transactions: measured.transactions,
        exact,
        p50Ms: percentile(latencies, 0.5),
        p99Ms: percentile(latencies, 0.99),
      },
      peers: peer && {
        streams: {
          recordsPerSecond: sums.recPerSec,
          cpuMicrosPerRecord: Number(((sums.cpuSec / RECORDS) * 1e6).toFixed(2)),
          peakRssMb: sums.rssMb,
          exact: sums.exact,
          p50Ms: latency.p50ms,
          p99Ms: latency.p99ms,
        },
      },
    };
  } finally {
    for (const child of started) child.kill('SIGKILL');
    await kafka.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Committed by a consumer that has read all records: every offset but the last marker of each partition. */
async function offsetsOf(kafka, topic) {
  const offsets = await kafka.admin.offsets(topic);
  return offsets.reduce((sum, { lastStable }) => sum + lastStable - 1, 0);
}

const topics = (kafka, name, input, output) =>
  kafka.admin.ensureTopics([
    { topic: input, partitions: PARTITIONS, cleanupPolicy: 'delete' },
    { topic: output, partitions: PARTITIONS, cleanupPolicy: 'compact' },
    { topic: `headwater.${name}.state`, partitions: PARTITIONS, cleanupPolicy: 'compact' },
    { topic: `headwater.${name}.parked`, partitions: PARTITIONS, cleanupPolicy: 'delete' },
  ]);

const keyOf = (i) => Buffer.from(`k${String(Math.floor(i * 2654435.761) % KEYS).padStart(8, '0')}`);

function valueOf(i, ts) {
  const head = `{"id":"${i}","amount":${i % 100},"ts":${ts},"pad":"`;
  return Buffer.from(`${head}${'x'.repeat(198 - head.length)}"}`);
}

async function fill(kafka, topic) {
  const writer = kafka.writer({ transactionalId: 'bench-fill', transactionTimeoutMs: 60_000 });
  await writer.fence();
  for (let from = 0; from < RECORDS; from += 20_000) {
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
async function check(kafka, topic) {
  const wanted = new Map();
  for (let i = 0; i < RECORDS; i++) {
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
  if (outputs !== RECORDS) throw new Error(`${outputs} outputs for ${RECORDS} records`);
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
