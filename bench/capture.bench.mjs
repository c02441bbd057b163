// Capture: rows/s for a backlog of 300,000 single-row transactions, read back committed.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const ROWS = 300_000;

export default async function run({ databaseUrl, kafkaBrokers, root, log }) {
  const load = (name) => import(pathToFileURL(join(root, `packages/${name}/dist/index.js`)).href);
  const [{ Capture }, { kafkaLog }] = await Promise.all([load('cdc'), load('kafka')]);
  const { Client } = createRequire(join(root, 'packages/core/package.json'))('pg');
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  try {
    await client.query(
      `CREATE TABLE orders (id bigint PRIMARY KEY, customer uuid, amount numeric(12,2), state text, note text, created_at timestamptz, flags int)`,
    );
    await kafka.admin.ensureTopics([{ topic: 'bench.orders', partitions: 4, cleanupPolicy: 'compact' }]);
    const options = {
      name: 'bench',
      connectionString: databaseUrl,
      log: kafka,
      tables: [{ table: 'public.orders', topic: 'bench.orders' }],
      snapshot: 'initial',
      outbox: false,
    };
    const first = new Capture(options); // makes slot and publication
    await first.start();
    await first.stop();
    log(`writing ${ROWS} transactions`);
    await client.query(`CREATE PROCEDURE fill(rows int) LANGUAGE plpgsql AS $$
      BEGIN
        FOR i IN 1..rows LOOP
          INSERT INTO orders VALUES (i, md5(i::text)::uuid, i / 100.0, 'open', repeat('x', 120), now(), i % 7);
          COMMIT;
        END LOOP;
      END $$`);
    await client.query('SET synchronous_commit = off');
    await client.query(`CALL fill(${ROWS})`);
    log('capturing');
    const cpuBefore = process.cpuUsage();
    const startedAt = performance.now();
    let peakRss = 0;
    const capture = new Capture(options);
    await capture.start();
    while (capture.status().rows < ROWS) {
      peakRss = Math.max(peakRss, process.memoryUsage.rss());
      if (capture.status().state === 'halted') throw new Error(capture.status().lastError);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const seconds = (performance.now() - startedAt) / 1000;
    const cpu = process.cpuUsage(cpuBefore);
    await capture.stop();
    const visible = await countCommitted(kafka);
    if (visible !== ROWS) throw new Error(`${visible} records are visible, ${ROWS} were written`);
    return {
      setup: { rows: ROWS, rowsPerTransaction: 1, columns: 7, exactlyOnce: true, partitions: 4 },
      ours: {
        rowsPerSecond: Math.round(ROWS / seconds),
        cpuMicrosPerRow: Math.round((cpu.user + cpu.system) / ROWS),
        peakRssMb: Math.round(peakRss / 1_048_576),
        seconds: Number(seconds.toFixed(1)),
      },
    };
  } finally {
    await kafka.close();
    await client.end();
  }
}

async function countCommitted(kafka) {
  const reader = kafka.reader();
  const ends = new Map();
  for (const { partition, start, lastStable } of await kafka.admin.offsets('bench.orders')) {
    reader.seek('bench.orders', partition, start);
    if (lastStable > start) ends.set(partition, lastStable);
  }
  let records = 0;
  while (ends.size > 0) {
    for (const batch of await reader.poll()) {
      records += batch.records.length;
      if (batch.nextOffset >= ends.get(batch.partition)) ends.delete(batch.partition);
    }
  }
  await reader.close();
  return records;
}
