// Restore: 1,000,000 keys of 200 B from the state topic to memory, and restarts with the state kept on local disk; beside Kafka Streams.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const KEYS = 1_000_000;
const BYTES = 200;
const PARTITIONS = 4;
const ROUNDS = 3;
const NAME = 'bench-restore';
/** What the peer makes its table of, and what ours waits for records on. */
const TABLE = 'bench-restore-table';
const INPUT = 'bench-restore-in';

export default async function run({ kafkaBrokers, root, log }) {
  const load = (path) => import(pathToFileURL(join(root, path)).href);
  const { kafkaLog } = await load('packages/kafka/dist/index.js');
  const { streamsPeer } = await load('bench/java/streams-peer.mjs');
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  const directory = mkdtempSync(join(tmpdir(), 'headwater-bench-restore-'));
  const start = (store) => worker(root, kafkaBrokers, directory, store);
  try {
    const compacted = { partitions: PARTITIONS, cleanupPolicy: 'compact' };
    await kafka.admin.ensureTopics([
      { topic: TABLE, ...compacted },
      { topic: INPUT, partitions: PARTITIONS, cleanupPolicy: 'delete' },
      { topic: `headwater.${NAME}.state`, ...compacted },
      { topic: `headwater.${NAME}.parked`, partitions: PARTITIONS, cleanupPolicy: 'delete' },
    ]);
    log(`writing ${KEYS} keys`);
    await fill(kafka);
    const peer = await streamsPeer({ root, kafkaBrokers, directory, log });
    await peer?.run('restore-fill', TABLE, KEYS);
    const ours = { cold: [], level: [], clean: [], killed: [] };
    const streams = [];
    for (let round = 1; round <= ROUNDS; round++) {
      log(`round ${round} of ${ROUNDS}`);
      ours.cold.push(await start('memory').up('stop'));
      if (peer !== undefined) streams.push(await peer.run('restore', TABLE, KEYS, 2));
      rmSync(join(directory, 'level'), { recursive: true, force: true });
      ours.level.push(await start('level').up('stop'));
      ours.clean.push(await start('level').up('kill'));
      ours.killed.push(await start('level').up('kill'));
    }
    return summary(ours, streams);
  } finally {
    await kafka.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

const keyOf = (i) => `k${String(i).padStart(8, '0')}`;

/** The state as a processor would leave it, and the same as a topic of its own for the peer's table. */
async function fill(kafka) {
  const { partitionOf } = await import('@headwater/core');
  const writer = kafka.writer({ transactionalId: 'bench-restore-fill', transactionTimeoutMs: 60_000 });
  await writer.fence();
  // Outside of transactions: the peer counts offsets, and markers have some.
  const producer = kafka.producer();
  const value = Buffer.alloc(BYTES, 'x');
  for (let from = 0; from < KEYS; from += 20_000) {
    const records = [];
    for (let i = from; i < from + 20_000; i++) {
      const key = keyOf(i);
      const partition = partitionOf(Buffer.from(key), PARTITIONS);
      records.push({ topic: `headwater.${NAME}.state`, partition, key: Buffer.from(`s:${key}`), value });
    }
    const end = await writer.transact(records);
    if (end.outcome !== 'committed') throw end.cause;
    await producer.send(
      records.map(({ key, partition }) => ({ topic: TABLE, partition, key: key.subarray(2), value })),
    );
  }
  await writer.close();
  await producer.close();
}

function worker(root, brokers, directory, store) {
  const settings = {
    brokers,
    name: NAME,
    input: INPUT,
    store,
    directory: join(directory, 'level'),
    probe: keyOf(KEYS - 1),
  };
  const spawnedAt = performance.now();
  const child = spawn(process.execPath, [join(root, 'bench/restore/worker.mjs'), JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  return {
    /** Waits until it runs, and ends it. */
    async up(ending) {
      const line = await new Promise((resolve, reject) => {
        createInterface({ input: child.stdout }).once('line', resolve);
        void exited.then((code) => reject(new Error(`the worker ended with ${code}`)));
      });
      const spawnToUpMs = performance.now() - spawnedAt;
      if (ending === 'kill') child.kill('SIGKILL');
      else child.stdin.end();
      await exited;
      return { ...JSON.parse(line), spawnToUpMs };
    },
  };
}

function summary(ours, streams) {
  const of = (results, field) => median(results.map((result) => result[field]));
  const seconds = of(ours.cold, 'upMs') / 1_000;
  const peer =
    streams.length === 0 ? undefined : Object.fromEntries(Object.keys(streams[0]).map((f) => [f, of(streams, f)]));
  return {
    setup: { keys: KEYS, valueBytes: BYTES, partitions: PARTITIONS, rounds: ROUNDS },
    ours: {
      restoreKeysPerSecond: Math.round(KEYS / (of(ours.cold, 'restoreMs') / 1_000)),
      startToRunningSeconds: round(seconds),
      cpuSeconds: round(of(ours.cold, 'cpuSeconds')),
      peakRssMb: of(ours.cold, 'peakRssMb'),
      restoreToDiskSeconds: round(of(ours.level, 'upMs') / 1_000),
      restartAfterStopMs: Math.round(of(ours.clean, 'upMs')),
      restartAfterKillMs: Math.round(of(ours.killed, 'upMs')),
      restartAfterKillWithNodeMs: Math.round(of(ours.killed, 'spawnToUpMs')),
      restartRssMb: of(ours.killed, 'peakRssMb'),
    },
    peers: peer && {
      streams: {
        restoreKeysPerSecond: peer.keysPerSec,
        startToRunningSeconds: peer.secStartToRunning,
        cpuSeconds: peer.cpuSec,
        peakRssMb: peer.rssMb,
      },
    },
    ratios: peer && { 'restore vs streams': round(KEYS / (of(ours.cold, 'restoreMs') / 1_000) / peer.keysPerSec) },
  };
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

const round = (value) => Math.round(value * 100) / 100;
