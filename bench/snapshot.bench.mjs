// Snapshot: rows/s for the initial snapshot of 1,000,000 rows (7 columns, ~220 B), by watermark, exactly once, in a process of its own.
import { fork } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const ROWS = 1_000_000;
const TOPIC = 'bench.orders';

export default async function run({ databaseUrl, kafkaBrokers, root, log }) {
  const { kafkaLog } = await import(pathToFileURL(join(root, 'packages/kafka/dist/index.js')).href);
  const { Client } = createRequire(join(root, 'packages/core/package.json'))('pg');
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  try {
    log(`writing ${ROWS} rows`);
    await client.query(
      `CREATE TABLE orders (id bigint PRIMARY KEY, customer uuid, amount numeric(12,2), state text, note text, created_at timestamptz, flags int)`,
    );
    await client.query(
      `INSERT INTO orders SELECT i, md5(i::text)::uuid, i / 100.0, 'open', repeat('x', 120), now(), i % 7 FROM generate_series(1, ${ROWS}) i`,
    );
    await client.query('VACUUM ANALYZE orders');
    await client.query('CHECKPOINT');
    await kafka.admin.ensureTopics([{ topic: TOPIC, partitions: 4, cleanupPolicy: 'compact' }]);
    log('taking the snapshot');
    const told = await inChild(join(root, 'bench/snapshot/capture.mjs'), {
      root,
      brokers: kafkaBrokers,
      rows: ROWS,
      name: 'bench',
      connectionString: databaseUrl,
      tables: [{ table: 'public.orders', topic: TOPIC }],
      snapshot: 'initial',
      outbox: false,
    });
    const visible = await keysCommitted(kafka);
    if (visible.records !== ROWS || visible.keys !== ROWS)
      throw new Error(`${visible.records} records of ${visible.keys} keys are visible, ${ROWS} rows were there`);
    return {
      setup: { rows: ROWS, columns: 7, workers: 2, exactlyOnce: true, partitions: 4 },
      ours: {
        rowsPerSecond: Math.round(ROWS / told.seconds),
        cpuMicrosPerRow: Number((told.cpuMicros / ROWS).toFixed(1)),
        peakRssMb: Math.round(told.peakRss / 1_048_576),
        longestBlockMs: Math.round(told.longestMs),
        seconds: Number(told.seconds.toFixed(1)),
      },
    };
  } finally {
    await kafka.close();
    await client.end();
  }
}

function inChild(script, options) {
  return new Promise((resolve, reject) => {
    const child = fork(script, [JSON.stringify(options)], { execArgv: [] });
    let told;
    child.on('message', (message) => (told = message));
    child.once('error', reject);
    child.once('exit', (code) =>
      code === 0 && told !== undefined ? resolve(told) : reject(new Error(`exit ${code}`)),
    );
  });
}

async function keysCommitted(kafka) {
  const reader = kafka.reader();
  const ends = new Map();
  for (const { partition, start, lastStable } of await kafka.admin.offsets(TOPIC)) {
    reader.seek(TOPIC, partition, start);
    if (lastStable > start) ends.set(partition, lastStable);
  }
  const seen = new Uint8Array(ROWS + 1);
  let [records, keys] = [0, 0];
  while (ends.size > 0) {
    for (const batch of await reader.poll()) {
      records += batch.records.length;
      for (const { key } of batch.records) {
        const id = Number(key.toString());
        if (seen[id] === 0) keys += 1;
        seen[id] = 1;
      }
      if (batch.nextOffset >= ends.get(batch.partition)) ends.delete(batch.partition);
    }
  }
  await reader.close();
  return { records, keys };
}
