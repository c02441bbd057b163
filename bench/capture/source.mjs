// The table, topic and captures that the benchmarks of capture share.
import { fork } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export const PARTITIONS = 4;
const COLUMNS =
  'id bigint PRIMARY KEY, customer uuid, amount numeric(12,2), state text, note text, created_at timestamptz, flags int';
/** A row of about 220 B, from `i`. */
export const ROW = `i, md5(i::text)::uuid, i / 100.0, 'open', repeat('x', 120), now(), i % 7`;

export async function openSource({ databaseUrl, kafkaBrokers, root, log }) {
  const { kafkaLog } = await import(pathToFileURL(join(root, 'packages/kafka/dist/index.js')).href);
  const { Client } = createRequire(join(root, 'packages/core/package.json'))('pg');
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  await client.query('SET synchronous_commit = off');
  await client.query(`CREATE PROCEDURE fill(rows int, per int) LANGUAGE plpgsql AS $$
    BEGIN
      FOR b IN 0..(rows / per - 1) LOOP
        EXECUTE 'INSERT INTO ' || current_setting('bench.target') || ' SELECT ${ROW.replaceAll("'", "''")} FROM generate_series($1, $2) i' USING b * per + 1, (b + 1) * per;
        COMMIT;
      END LOOP;
    END $$`);
  const topicOf = (name) => `bench.${name}`;
  const options = (name, more) => ({
    name,
    connectionString: databaseUrl,
    tables: [{ table: `public.${name}`, topic: topicOf(name) }],
    snapshot: 'never',
    outbox: false,
    ...more,
  });
  const capture = (name, { rows, ...more } = {}) => {
    const setup = { brokers: kafkaBrokers, options: options(name, more), ...(rows !== undefined && { rows }) };
    return new CaptureProcess(root, setup);
  };
  return {
    client,
    kafka,
    topicOf,
    capture,
    /** A table of that name, captured from now on: slot and publication are there, and nobody reads. */
    async table(name) {
      await client.query(`CREATE TABLE ${name} (${COLUMNS})`);
      await kafka.admin.ensureTopics([{ topic: topicOf(name), partitions: PARTITIONS, cleanupPolicy: 'compact' }]);
      const first = capture(name);
      await first.started;
      await first.stop();
    },
    async fill(name, rows, per) {
      log(`writing ${rows} rows, ${per} per transaction`);
      await client.query(`SET bench.target = '${name}'`);
      await client.query(`CALL fill(${rows}, ${per})`);
    },
    /** Captures a backlog of so many rows, checks that all are visible, and drops what it needed. */
    async drain(name, rows, more = {}) {
      log(`capturing ${rows} rows`);
      const process = capture(name, { rows, ...more });
      const figures = await process.figures();
      await process.stop();
      const visible = await countCommitted(kafka, topicOf(name));
      if (visible !== rows) throw new Error(`${visible} records are visible, ${rows} were written`);
      await client.query(`SELECT pg_drop_replication_slot('headwater_${name}')`);
      return {
        rowsPerSecond: Math.round(rows / figures.seconds),
        cpuMicrosPerRow: Number((figures.cpuMicros / rows).toFixed(2)),
        peakRssMb: figures.peakRssMb,
        seconds: Number(figures.seconds.toFixed(1)),
      };
    },
    async close() {
      await kafka.close();
      await client.end();
    },
  };
}

class CaptureProcess {
  #child;
  #figures;
  #told;

  constructor(root, setup) {
    this.#child = fork(join(root, 'bench/capture/child.mjs'), [root, JSON.stringify(setup)]);
    this.exited = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#await();
    this.started = new Promise((resolve, reject) => {
      this.#child.on('message', (message) => {
        if (message.error !== undefined) {
          reject(new Error(message.error));
          this.#told.reject(new Error(message.error));
        } else if (message.started) resolve();
        else this.#told.resolve(message);
      });
      this.#child.once('exit', () => this.#told.reject(new Error('the capture ended')));
    });
    this.started.catch(() => undefined); // the figures tell too
  }

  /** What it tells at its end. */
  figures() {
    return this.#figures;
  }

  /** What it has used since `mark`. */
  async measure(act) {
    this.#child.send('mark');
    const result = await act();
    this.#await();
    this.#child.send('figures');
    return [result, await this.#figures];
  }

  async stop() {
    this.#child.send('stop');
    await this.exited;
  }

  #await() {
    this.#figures = new Promise((resolve, reject) => (this.#told = { resolve, reject }));
    this.#figures.catch(() => undefined); // whoever asks for them is told
  }
}

async function countCommitted(kafka, topic) {
  const reader = kafka.reader();
  const ends = new Map();
  let records = 0;
  for (const { partition, start, lastStable } of await kafka.admin.offsets(topic)) {
    if (lastStable <= start) continue;
    reader.seek(topic, partition, start);
    ends.set(partition, lastStable);
  }
  while (ends.size > 0) {
    for (const batch of await reader.poll()) {
      records += batch.records.length;
      if (batch.nextOffset < (ends.get(batch.partition) ?? 0)) continue;
      ends.delete(batch.partition);
      reader.drop(topic, batch.partition);
    }
  }
  await reader.close();
  return records;
}
