import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { kafkaLog } from '@headwater/kafka';
import {
  eventually,
  kafkaCluster,
  postgresFaultProxy,
  seededRandom,
  testDatabase,
  uniqueName,
} from '@headwater/testing';
import pg from 'pg';
import { Captures } from './captures.mjs';
import { foldDifference } from './fold.mjs';
import { PositionTail } from './position-tail.mjs';
import { producerCounter } from './producers.mjs';
import { SteadyLoad } from './steady-load.mjs';
import { strikes } from './strikes.mjs';
import { slope } from './trend.mjs';

const TABLES = ['t0', 't1', 't2', 't3'];
const PARTITIONS = 3;
const SAMPLE_MS = 1_000;
/** What is there in good times is looked at after so many. */
const BEFORE_SAMPLES = 3;
/** How often garbage is collected before the memory is looked at: what is left then can only be kept. A heap that fills between collections is no growth. */
const COLLECTED_SAMPLES = 60;
/** Heaps and caches fill in the beginning: this part of the time is not measured. */
const WARM_UP = 0.25;
const DRAIN_MS = 120_000;
/** Of a capture whose snapshots are over: for queries, for replication commands, for the stream, and to look after the publication. */
const SESSIONS = 4;
/** Until what ended with a fault is gone on both sides. */
const SETTLE_MS = 30_000;
/** From here on a growth of 1 MB an hour is no noise. */
const NIGHT_HOURS = 5;
const MB = 1024 * 1024;

/**
 * A capture under a steady load for a time, and until each kind of fault has struck, one every so often, on a broker of their own. Resolves with
 * figures and what is wrong with them: memory that grows, WAL that is held back, sockets, sessions or producers that pile up, a fold that
 * differs from its table.
 */
export async function captureSoak({ seed, minutes, rate, faultEverySeconds, limits, services, log: say }) {
  const random = seededRandom(seed);
  const name = uniqueName('soak');
  const database = await testDatabase(services.databaseUrl);
  const faulty = faultEverySeconds > 0;
  // The one of the services cannot be killed: it may be anybody's.
  const cluster = faulty ? await kafkaCluster({ brokers: 1, heapMb: 512 }) : undefined;
  const brokers = cluster?.brokers ?? services.kafkaBrokers;
  const log = kafkaLog({ brokers });
  const producers = await producerCounter(brokers);
  const sql = new pg.Client({ connectionString: database.url });
  const postgres = await postgresFaultProxy(database.url);
  const topicOf = (table) => `${name}.${table}`;
  const captures = new Captures({
    name,
    connectionString: faulty ? postgres.url : database.url,
    brokers,
    ...(faulty ? { kafkaPort: cluster.proxy.port } : {}),
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
    const [slot, transactionalId] = [`headwater_${name}`, `headwater.cdc.${name}`];
    const between = { captures, broker: cluster?.nodes[0], kafka: cluster?.proxy, postgres, sql, slot, random };
    const faultsOf = strikes(between);
    const settled = async () => ({
      state: (await captures.status()).state,
      files: openFiles(captures.pid),
      producers: await producers.count(transactionalId),
      ...(await sessions(sql)),
    });
    let before;
    const startedAt = performance.now();
    const elapsed = () => performance.now() - startedAt;
    const faults = {};
    const samples = [];
    const isOver = () => elapsed() >= minutes * 60_000 && (!faulty || faultsOf.kinds.every((kind) => faults[kind] > 0));
    let strikeAt = faulty ? faultEverySeconds * 1_000 : Infinity;
    while (!isOver()) {
      await delay(SAMPLE_MS);
      const of = await sample(captures, sql, slot);
      if (samples.length % COLLECTED_SAMPLES === COLLECTED_SAMPLES - 1)
        of.keptBytes = (await captures.status('collected')).rssBytes;
      samples.push({ atMs: elapsed(), ...of });
      if (samples.length === BEFORE_SAMPLES) before ??= await settled();
      if (elapsed() >= strikeAt) {
        before ??= await settled();
        const fault = await faultsOf.strike();
        say(`${Math.round(elapsed() / 1_000)} s: ${fault}`);
        faults[fault] = (faults[fault] ?? 0) + 1;
        strikeAt = elapsed() + faultEverySeconds * 1_000;
      }
      if (samples.length % 60 === 0) say(summary(samples.at(-1), load));
    }
    const changes = load.changes;
    const seconds = elapsed() / 1_000;
    await load.stop();
    const [{ lsn }] = (await sql.query('SELECT pg_current_wal_lsn()::text AS lsn')).rows;
    await Promise.race([
      tail.reached(lsn),
      // Rejects when it halts.
      captures.streaming().then(() => new Promise(() => undefined)),
      delay(DRAIN_MS).then(() => {
        throw new Error(`the position has not reached ${lsn} ${DRAIN_MS} ms after the load`);
      }),
    ]);
    const differences = await foldDifference({ log, sql, tables: TABLES, topicOf });
    const after = await eventually(
      async () => {
        const found = await settled();
        if (found.state !== 'streaming' || grown(before, found).length > 0) throw new Error('not settled');
        return found;
      },
      { timeoutMs: SETTLE_MS, intervalMs: 250 },
    ).catch(() => settled());
    const result = {
      seed,
      minutes,
      changesPerSecond: Math.round(changes / seconds),
      faults,
      differences,
      before,
      after,
      ...figures(samples),
    };
    return { ...result, wrong: wrongWith(result, limits, rate) };
  } catch (error) {
    throw new Error(`seed ${seed}: ${error.message}\n${captures.said.join('\n')}`, { cause: error });
  } finally {
    await load?.stop().catch(() => undefined);
    await captures.stop();
    await postgres.close();
    await tail.stop();
    await producers.close();
    await log.admin.deleteTopics([...TABLES.map(topicOf), tail.topic]).catch(() => undefined);
    await log.close();
    await cluster?.stop();
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
  return { rssBytes, state, lagBytes: rows[0].lag, slots: rows[0].slots };
}

/** Of captures, in this database. */
async function sessions(sql) {
  const { rows } = await sql.query(
    `SELECT count(*)::int AS sessions FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'headwater.cdc.%'`,
  );
  return rows[0];
}

/** What there is more of than before. A few files more may be sockets that are only now needed. */
function grown(before, after) {
  const most = { files: before.files + 2, producers: before.producers, sessions: SESSIONS };
  return Object.keys(most).filter((what) => after[what] > most[what]);
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
  const perHour = (name) => {
    const told = measured.filter((one) => one[name] !== undefined);
    return told.length < 3 ? undefined : round(slope(told.map((one) => [one.atMs / 3_600_000, one[name]])) / MB);
  };
  return {
    hours: (measured.at(-1).atMs - measured[0].atMs) / 3_600_000,
    rssMb: Math.round(most('rssBytes') / MB),
    rssMbPerHour: perHour('rssBytes'),
    keptMb: measured.filter((one) => one.keptBytes !== undefined).map((one) => Math.round(one.keptBytes / MB)),
    keptMbPerHour: perHour('keptBytes'),
    lagMb: round(most('lagBytes') / MB),
    slots: most('slots'),
  };
}

const round = (value) => Number(value.toFixed(2));

function wrongWith(result, limits, rate) {
  const {
    differences,
    rssMbPerHour,
    keptMbPerHour = rssMbPerHour,
    hours,
    rssMb,
    lagMb,
    before,
    after,
    slots,
    changesPerSecond,
  } = result;
  return [
    differences.length > 0 && `the fold differs from its table: ${differences.slice(0, 5).join(', ')}`,
    // A short run cannot tell a small slope from noise: within it memory may differ by so much.
    keptMbPerHour > (hours >= NIGHT_HOURS ? 1 : Math.max(1, limits.rssNoiseMb / hours)) &&
      `memory grows by ${keptMbPerHour} MB an hour`,
    rssMb > limits.rssMb && `memory reached ${rssMb} MB`,
    lagMb > limits.lagMb && `the slot held back ${lagMb} MB`,
    after.state !== 'streaming' && `it is ${after.state} after the last fault`,
    ...grown(before, after).map((what) => `${what}: ${after[what]} after the faults, ${before[what]} before`),
    slots !== 1 && `${slots} slots`,
    changesPerSecond < rate * 0.9 && `the load was only ${changesPerSecond} changes a second`,
  ].filter(Boolean);
}

function summary({ atMs, rssBytes, lagBytes, state }, load) {
  return `${Math.round(atMs / 60_000)} min: ${state}, ${load.changes} changes, ${Math.round(rssBytes / MB)} MB, ${Math.round(lagBytes / 1024)} KB behind`;
}
