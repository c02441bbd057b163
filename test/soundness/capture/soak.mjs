import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { kafkaLog } from '@headwater/kafka';
import { faultProxy, postgresFaultProxy, seededRandom, testDatabase, uniqueName } from '@headwater/testing';
import pg from 'pg';
import { Captures } from './captures.mjs';
import { foldDifference } from './fold.mjs';
import { PositionTail } from './position-tail.mjs';
import { SteadyLoad } from './steady-load.mjs';
import { slope } from './trend.mjs';

const TABLES = ['t0', 't1', 't2', 't3'];
const PARTITIONS = 3;
const SAMPLE_MS = 1_000;
/** Heaps and caches fill in the beginning: this part of the time is not measured. */
const WARM_UP = 0.25;
const DRAIN_MS = 120_000;
const MB = 1024 * 1024;

/**
 * A capture under a steady load for a time, with a fault every so often. Resolves with figures and what is wrong with them: memory that
 * grows, WAL that is held back, sockets that pile up, a fold that differs from its table.
 */
export async function captureSoak({ seed, minutes, rate, faultEverySeconds, limits, services, log: say }) {
  const random = seededRandom(seed);
  const name = uniqueName('soak');
  const database = await testDatabase(services.databaseUrl);
  const log = kafkaLog({ brokers: services.kafkaBrokers });
  const sql = new pg.Client({ connectionString: database.url });
  const [host, port] = services.kafkaBrokers[0].split(':');
  const kafka = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
  const postgres = await postgresFaultProxy(database.url);
  const faulty = faultEverySeconds > 0;
  const topicOf = (table) => `${name}.${table}`;
  const captures = new Captures({
    name,
    connectionString: faulty ? postgres.url : database.url,
    brokers: services.kafkaBrokers,
    ...(faulty ? { kafkaPort: kafka.port } : {}),
    tables: TABLES.map((table) => ({ table: `public.${table}`, topic: topicOf(table) })),
    snapshot: 'initial',
    outbox: false,
  });
  const tail = new PositionTail(log, `headwater.cdc.${name}.position`);
  let load;
  try {
    await sql.connect();
    for (const table of TABLES) await sql.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v bigint, b text)`);
    await log.admin.ensureTopics([
      ...TABLES.map((table) => ({ topic: topicOf(table), partitions: PARTITIONS, cleanupPolicy: 'compact' })),
      { topic: tail.topic, partitions: 1, cleanupPolicy: 'compact' },
    ]);
    tail.start();
    captures.start();
    await captures.streaming();
    load = new SteadyLoad({ url: database.url, tables: TABLES, writers: 4, rate, random: random.fork() });
    const strike = strikes({ kafka, postgres, sql, slot: `headwater_${name}`, random });
    const startedAt = performance.now();
    const elapsed = () => performance.now() - startedAt;
    const faults = {};
    const samples = [];
    for (let next = SAMPLE_MS; elapsed() < minutes * 60_000; next += SAMPLE_MS) {
      await delay(Math.max(0, next - elapsed()));
      samples.push({ atMs: elapsed(), ...(await sample(captures, sql, `headwater_${name}`)) });
      if (faulty && samples.length % faultEverySeconds === 0) {
        const fault = await strike();
        faults[fault] = (faults[fault] ?? 0) + 1;
      }
      if (samples.length % 60 === 0) say(summary(samples.at(-1), load));
    }
    const changes = load.changes;
    const seconds = elapsed() / 1_000;
    await load.stop();
    const [{ lsn }] = (await sql.query('SELECT pg_current_wal_lsn()::text AS lsn')).rows;
    await Promise.race([
      tail.reached(lsn),
      delay(DRAIN_MS).then(() => {
        throw new Error(`the position has not reached ${lsn} ${DRAIN_MS} ms after the load`);
      }),
    ]);
    const differences = await foldDifference({ log, sql, tables: TABLES, topicOf });
    const result = {
      seed,
      minutes,
      changesPerSecond: Math.round(changes / seconds),
      faults,
      differences,
      ...figures(samples),
    };
    return { ...result, wrong: wrongWith(result, limits, rate) };
  } catch (error) {
    throw new Error(`seed ${seed}: ${error.message}\n${captures.said.join('\n')}`, { cause: error });
  } finally {
    await load?.stop().catch(() => undefined);
    await captures.stop();
    await Promise.all([kafka.close(), postgres.close()]);
    await tail.stop();
    await log.admin.deleteTopics([...TABLES.map(topicOf), tail.topic]).catch(() => undefined);
    await log.close();
    await sql.end();
    await database.drop();
  }
}

async function sample(captures, sql, slot) {
  const { rssBytes, state } = await captures.status();
  const { rows } = await sql.query(
    `SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::float8 AS lag,
            (SELECT count(*)::int FROM pg_replication_slots WHERE database = current_database()) AS slots
       FROM pg_replication_slots WHERE slot_name = $1`,
    [slot],
  );
  return { rssBytes, state, lagBytes: rows[0].lag, slots: rows[0].slots, files: openFiles(captures.pid) };
}

/** Sockets, timers and files of a process; undefined where the system does not tell. */
function openFiles(pid) {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return undefined;
  }
}

function figures(samples) {
  const measured = samples.slice(Math.floor(samples.length * WARM_UP));
  const most = (name) => Math.max(...measured.map((one) => one[name]));
  const perHour = (name) => slope(measured.map((one) => [one.atMs / 3_600_000, one[name]]));
  const third = Math.ceil(measured.length / 3);
  const median = (part, name) => part.map((one) => one[name]).toSorted((x, y) => x - y)[Math.floor(part.length / 2)];
  return {
    hours: (measured.at(-1).atMs - measured[0].atMs) / 3_600_000,
    rssMb: Math.round(most('rssBytes') / MB),
    rssMbPerHour: Number((perHour('rssBytes') / MB).toFixed(2)),
    lagMb: Number((most('lagBytes') / MB).toFixed(2)),
    files: [median(measured.slice(0, third), 'files'), median(measured.slice(-third), 'files')],
    slots: most('slots'),
  };
}

function wrongWith(result, limits, rate) {
  const { differences, rssMbPerHour, hours, rssMb, lagMb, files, slots, changesPerSecond } = result;
  return [
    differences.length > 0 && `the fold differs from its table: ${differences.slice(0, 5).join(', ')}`,
    // A short run cannot tell a small slope from noise: within it memory may differ by so much.
    rssMbPerHour > Math.max(1, limits.rssNoiseMb / hours) && `memory grows by ${rssMbPerHour} MB an hour`,
    rssMb > limits.rssMb && `memory reached ${rssMb} MB`,
    lagMb > limits.lagMb && `the slot held back ${lagMb} MB`,
    files[0] !== undefined && files[1] > files[0] + 2 && `open files went from ${files[0]} to ${files[1]}`,
    slots !== 1 && `${slots} slots`,
    changesPerSecond < rate * 0.9 && `the load was only ${changesPerSecond} changes a second`,
  ].filter(Boolean);
}

function strikes({ kafka, postgres, sql, slot, random }) {
  const paused = async (proxy) => {
    proxy.pause();
    await delay(3_000);
    proxy.resume();
  };
  const all = {
    walsender: () =>
      sql.query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1', [slot]),
    kafkaCut: async () => kafka.cutAll(),
    postgresCut: async () => postgres.cutAll(),
    kafkaSilent: () => paused(kafka),
    postgresSilent: () => paused(postgres),
  };
  return async () => {
    const fault = random.pick(Object.keys(all));
    await all[fault]();
    return fault;
  };
}

function summary({ atMs, rssBytes, lagBytes, state }, load) {
  return `${Math.round(atMs / 60_000)} min: ${state}, ${load.changes} changes, ${Math.round(rssBytes / MB)} MB, ${Math.round(lagBytes / 1024)} KB behind`;
}
