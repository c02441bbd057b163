import { setTimeout as delay } from 'node:timers/promises';
import { groupOf, parkedTopicOf, stateTopicOf } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { kafkaCluster, seededRandom, uniqueName } from '@headwater/testing';
import { check } from './check.mjs';
import { losses, shuffled } from './losses.mjs';
import { Workers } from './workers.mjs';

const PARTITIONS = 6;
const KEYS = 50;
const WORKERS = 3;
const SESSION_MS = 3_000;
const TRANSACTION_MS = 5_000;
/** How long the next fault waits for progress at most. */
const PATIENCE_MS = 6_000;

/**
 * `records` through three stateful workers on three brokers, under `kills` kill -9, pauses past the session, broker kills, and lost requests
 * and replies of every kind a transaction has. Resolves with what struck; rejects when the output is not exactly what the input demands.
 */
export async function soundness({ seed, records, kills, log: say }) {
  const random = seededRandom(seed).fraction;
  const startedAt = performance.now();
  const cluster = await kafkaCluster({ brokers: 3, heapMb: 256, log: say });
  const log = kafkaLog({ brokers: cluster.brokers });
  let workers;
  try {
    const run = { name: uniqueName('sound'), input: uniqueName('input'), output: uniqueName('output') };
    await log.admin.ensureTopics([
      ...[run.input, run.output, parkedTopicOf(run.name)].map((topic) => {
        return { topic, partitions: PARTITIONS, cleanupPolicy: 'delete' };
      }),
      { topic: stateTopicOf(run.name), partitions: PARTITIONS, cleanupPolicy: 'compact' },
    ]);
    const topics = [run.input, run.output, parkedTopicOf(run.name), stateTopicOf(run.name)];
    const loss = losses(random);
    cluster.proxy.decide = (request) => loss.decide(request);
    const proxies = Object.fromEntries(cluster.nodes.map(({ port }, index) => [port, cluster.proxy.ports[index]]));
    const times = { sessionTimeoutMs: SESSION_MS, transactionTimeoutMs: TRANSACTION_MS };
    workers = new Workers(WORKERS, { brokers: cluster.brokers, proxies, ...run, ...times });
    const feed = await feeder(log, run.input, records, random);
    const strike = strikes({ cluster, workers, loss, topics, random });
    const few = Math.max(1, Math.round(kills / 10));
    const plan = shuffled(
      [
        ...Array(kills).fill('kill'),
        ...Array(2 * few).fill('pause'),
        ...Array(few).fill('brokerKill'),
        ...Array(few).fill('blackOut'),
      ],
      random,
    );
    const done = { kill: 0, pause: 0, brokerKill: 0, blackOut: 0 };
    for (const [index, fault] of plan.entries()) {
      await feed(Math.ceil((records * (index + 1)) / plan.length));
      await progress(log, run.output, random() * (records / plan.length));
      await strike[fault]();
      done[fault]++;
      if ((index + 1) % 10 === 0) say(`${index + 1} of ${plan.length} faults, ${JSON.stringify(loss.lost)}`);
    }
    await strike.settled();
    cluster.proxy.decide = () => undefined;
    await cluster.proxy.release();
    await cluster.heal(topics);
    await check({ log, ...run, group: groupOf(run.name), records, keys: KEYS, topics });
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    return { sound: true, seed, records, faults: done, lostReplies: loss.lost, seconds };
  } catch (error) {
    throw new Error(`seed ${seed}: ${error.message}\n${await workers?.report()}`, { cause: error });
  } finally {
    await workers?.stop();
    await log.close();
    await cluster.stop();
  }
}

/** Writes the input up to a count: key `n % KEYS` by chance, each key's values counting from 0. */
async function feeder(log, input, records, random) {
  const writer = log.writer({ transactionalId: uniqueName('feeder') });
  await writer.fence();
  const next = new Map();
  let fed = 0;
  return async (upTo) => {
    while (fed < upTo) {
      const batch = Array.from({ length: Math.min(upTo, fed + 500, records) - fed }, () => {
        const key = `key-${Math.floor(random() * KEYS)}`;
        const value = next.get(key) ?? 0;
        next.set(key, value + 1);
        return { topic: input, key: Buffer.from(key), value: Buffer.from(String(value)) };
      });
      await written(writer, batch);
      fed += batch.length;
    }
  };
}

/** The feeder is not behind the proxy, but brokers die under it: an abort is repeated, an unknown end would blur the input. */
async function written(writer, batch) {
  for (;;) {
    const end = await writer.transact(batch);
    if (end.outcome === 'committed') return;
    if (end.outcome === 'unknown') throw new Error(`the input is not known: ${end.cause}`);
    if (end.fenced === 'writer') await writer.fence();
  }
}

/** Resolves when about `count` more outputs are committed, or when it takes too long: the fault comes then anyway. */
async function progress(log, output, count) {
  const committed = async () => (await log.admin.offsets(output)).reduce((sum, { lastStable }) => sum + lastStable, 0);
  const before = await committed();
  const deadline = performance.now() + PATIENCE_MS;
  while (performance.now() < deadline && (await committed()) < before + count) await delay(50);
}

function strikes({ cluster, workers, loss, topics, random }) {
  const any = () => Math.floor(random() * workers.count);
  const paused = new Map();
  let healing = Promise.resolve();
  return {
    kill: () => workers.kill(any()),
    async pause() {
      const index = any();
      await paused.get(index);
      const resumed = workers.pause(index, SESSION_MS * 1.5);
      paused.set(index, resumed);
    },
    async brokerKill() {
      // One at a time: two of three must live.
      await healing;
      const victim = cluster.nodes[Math.floor(random() * cluster.nodes.length)];
      await victim.kill();
      healing = delay(4_000).then(() => cluster.heal(topics));
      healing.catch(() => undefined);
    },
    async blackOut() {
      loss.blackOut(workers.clientId(any()));
      // What was kept comes late, into whatever goes on by now.
      cluster.proxy.release().catch(() => undefined);
    },
    settled: () => Promise.all([healing, ...paused.values()]),
  };
}
