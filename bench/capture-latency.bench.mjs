// Capture: commit in Postgres to readable committed in Kafka, p50 and p99 at a steady 1,000 transactions/s of 4 rows, and the CPU it takes.
import { fork } from 'node:child_process';
import { join } from 'node:path';
import { openSource, PARTITIONS } from './capture/source.mjs';

const [WARM_UP_S, SECONDS, TPS, ROWS] = [40, Number(process.env.BENCH_SECONDS ?? 30), 1_000, 4];

export default async function run(services) {
  const { databaseUrl, root, log } = services;
  const source = await openSource(services);
  try {
    await source.table('steady');
    const capture = source.capture('steady');
    await capture.started;
    log(`${TPS} transactions/s for ${WARM_UP_S + SECONDS} s`);
    const load = fork(join(root, 'bench/capture/load.mjs'), [
      root,
      JSON.stringify({ databaseUrl, table: 'steady', tps: TPS, rows: ROWS, seconds: WARM_UP_S + SECONDS }),
    ]);
    const written = new Promise((resolve, reject) => {
      load.once('message', resolve);
      load.once('exit', (code) => reject(new Error(`the load ended with ${code}`)));
    });
    written.catch(() => undefined); // awaited below
    await new Promise((resolve) => setTimeout(resolve, WARM_UP_S * 1_000));
    const [latencies, used] = await capture.measure(() => latenciesOf(source.kafka, source.topicOf('steady')));
    const transactions = await written;
    await capture.stop();
    latencies.sort((a, b) => a - b);
    const percentile = (p) => Number(latencies[Math.floor(latencies.length * p)].toFixed(1));
    return {
      setup: {
        transactionsPerSecond: Math.round(transactions / (WARM_UP_S + SECONDS)),
        rowsPerTransaction: ROWS,
        seconds: SECONDS,
        exactlyOnce: true,
        partitions: PARTITIONS,
      },
      ours: {
        p50Ms: percentile(0.5),
        p99Ms: percentile(0.99),
        maxMs: percentile(0.999_999),
        cores: Number((used.cpuMicros / 1e6 / used.seconds).toFixed(3)),
        peakRssMb: used.peakRssMb,
        records: latencies.length,
      },
    };
  } finally {
    await source.close();
  }
}

/** Milliseconds from the commit time in each record to its arrival at a committed-only reader. */
async function latenciesOf(kafka, topic) {
  const reader = kafka.reader();
  for (const { partition, lastStable } of await kafka.admin.offsets(topic)) reader.seek(topic, partition, lastStable);
  const latencies = [];
  const end = Date.now() + SECONDS * 1_000;
  while (Date.now() < end) {
    for (const { records } of await reader.poll({ maxWaitMs: 100 })) {
      const now = performance.timeOrigin + performance.now();
      for (const { headers } of records)
        latencies.push(now - Number(headers.find(([name]) => name === 'hw_ts')[1]) / 1_000);
    }
  }
  await reader.close();
  return latencies;
}
