import { setTimeout as delay } from 'node:timers/promises';
import { kafkaLog } from '@headwater/kafka';
import { seededRandom, testDatabase, uniqueName } from '@headwater/testing';
import pg from 'pg';
import { Captures } from './captures.mjs';
import { check } from './check.mjs';
import { Load, schema } from './load.mjs';
import { networks } from './networks.mjs';
import { PositionTail } from './position-tail.mjs';

const PARTITIONS = 3;
const WRITERS = 4;
const PRELOADED = 40_000;
const CHUNK_ROWS = 1_000;
/** How long anything may take that must happen. */
const PATIENCE_MS = 90_000;

/**
 * Kills a capture under load `kills` times: while it snapshots, while it starts, in its first second, and later; replies of the log and
 * acknowledgements are lost meanwhile. Resolves with figures when
 * the topics hold exactly the committed changes; rejects with the seed and what differs.
 */
export async function captureSoundness({ seed, kills, tables: count, services, log: say }) {
  const seeded = seededRandom(seed);
  const random = seeded.fraction;
  const startedAt = performance.now();
  const name = uniqueName('sound');
  const database = await testDatabase(services.databaseUrl);
  const log = kafkaLog({ brokers: services.kafkaBrokers });
  const sql = new pg.Client({ connectionString: database.url });
  const tables = Array.from({ length: count ?? 2 + Math.floor(random() * 7) }, (_, index) => `t${index}`);
  const topicOf = (table) => `${name}.${table}`;
  const between = await networks(database.url, services.kafkaBrokers, seeded.fork());
  const captures = new Captures({
    name,
    connectionString: between.databaseUrl,
    brokers: services.kafkaBrokers,
    kafkaPort: between.kafkaPort,
    tables: tables.map((table) => ({ table: `public.${table}`, topic: topicOf(table) })),
    snapshot: 'initial',
    snapshotChunkRows: CHUNK_ROWS,
    outbox: false,
  });
  const tail = new PositionTail(log, `headwater.cdc.${name}.position`);
  let load;
  try {
    await sql.connect();
    await sql.query(schema(tables));
    await sql.query(
      `INSERT INTO t0 SELECT 10000 + g, nextval('versions'), repeat(md5(g::text), 5) FROM generate_series(1, ${PRELOADED}) g`,
    );
    await log.admin.ensureTopics([
      ...tables.map((table) => ({ topic: topicOf(table), partitions: PARTITIONS, cleanupPolicy: 'delete' })),
      { topic: tail.topic, partitions: 1, cleanupPolicy: 'compact' },
    ]);
    tail.start();
    load = new Load({ url: database.url, tables, writers: WRITERS, pauseMs: 15, random: seeded.fork().fraction });
    const done = { snapshot: 0, amidSnapshot: 0, start: 0, firstSecond: 0, later: 0 };
    const recoveries = [];
    let killedAt;
    let streamedFrom;
    const recovered = () => {
      const at = captures.streamingAt > 0 ? tail.firstSince(captures.streamingAt) : undefined;
      if (at !== undefined && killedAt !== undefined) recoveries.push(at - killedAt);
    };
    for (let kill = 0; kill < kills; kill++) {
      between.change();
      captures.start();
      const kind =
        kill < Math.ceil(kills / 10)
          ? 'snapshot'
          : ['start', 'firstSecond', 'later', 'later'][Math.floor(random() * 4)];
      if (kind === 'snapshot') await snapshotBegun(captures, tail, random);
      else if (kind === 'start') await delay(random() * 700);
      else {
        await within(captures.streaming(), 'it streams');
        // What is written from here on can only come through the stream.
        streamedFrom ??= Number((await sql.query('SELECT last_value FROM journal_n_seq')).rows[0].last_value);
        await delay(kind === 'later' ? 1_000 + random() * 1_000 : random() * 1_000);
      }
      recovered();
      const snapshotting = kind === 'snapshot' && (await captures.status()).snapshots.length > 0;
      await captures.kill();
      killedAt = performance.now();
      done[kind] += 1;
      if (snapshotting) done.amidSnapshot += 1;
      if ((kill + 1) % 25 === 0) say(`${kill + 1} of ${kills} kills, ${load.transactions} transactions`);
    }
    between.heal();
    captures.start();
    await within(captures.streaming(), 'the last one streams');
    streamedFrom ??= Number((await sql.query('SELECT last_value FROM journal_n_seq')).rows[0].last_value);
    await load.stop();
    const [{ lsn }] = (await sql.query('SELECT pg_current_wal_lsn()::text AS lsn')).rows;
    await within(tail.reached(lsn), `the position reaches ${lsn}`);
    await within(snapshotted(captures), 'the snapshot is done');
    recovered();
    const found = await check({ log, sql, tables, topicOf, streamedFrom });
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    return {
      sound: true,
      seed,
      kills: done,
      lost: between.lost,
      tables: tables.length,
      ...found,
      recoveryMs: quantiles(recoveries),
      seconds,
    };
  } catch (error) {
    throw new Error(`seed ${seed}: ${error.message}\n${captures.said.join('\n')}`, { cause: error });
  } finally {
    await load?.stop().catch(() => undefined);
    await captures.stop();
    await between.close();
    await tail.stop();
    await log.admin.deleteTopics([...tables.map(topicOf), tail.topic]).catch(() => undefined);
    await log.close();
    await sql.end();
    await database.drop();
  }
}

/** Resolves at some moment of the snapshot, or when there is none any more. */
async function snapshotBegun(captures, tail, random) {
  const begun = tail.count;
  await Promise.race([
    within(captures.streaming(), 'it streams'),
    (async () => {
      while (tail.count === begun) await delay(5);
    })(),
  ]);
  await delay(random() * 300);
}

async function snapshotted(captures) {
  while ((await captures.status()).snapshots.length > 0) await delay(50);
}

async function within(promise, what) {
  const over = new AbortController();
  try {
    return await Promise.race([
      promise,
      delay(PATIENCE_MS, undefined, { signal: over.signal }).then(() => {
        throw new Error(`after ${PATIENCE_MS} ms it does not hold that ${what}`);
      }),
    ]);
  } finally {
    over.abort();
  }
}

function quantiles(values) {
  const sorted = values.toSorted((x, y) => x - y).map(Math.round);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: sorted.at(-1) };
}
