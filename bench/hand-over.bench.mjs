// A member of a processor joins and leaves: how long partitions that stay, and those that move, go without a handled record.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const PARTITIONS = 6;
const ROUNDS = 12;
const SLOW_ROUNDS = 6;
const HANDLER_MS = 5;
const SLOW_MS = 1_000;
const LOAD_MS = 20;
const UNDISTURBED_MS = 1_000;
const NAME = 'bench-hand-over';
const INPUT = 'bench-hand-over-in';

export default async function run({ kafkaBrokers, root, log }) {
  const load = (path) => import(pathToFileURL(join(root, path)).href);
  const { kafkaLog } = await load('packages/kafka/dist/index.js');
  const { ProcessRunner, parkedTopicOf, stateTopicOf } = await load('packages/core/dist/index.js');
  const kafka = kafkaLog({ brokers: kafkaBrokers });
  const topics = [INPUT, parkedTopicOf(NAME), stateTopicOf(NAME)];
  await kafka.admin.ensureTopics(
    topics.map((topic) => ({ topic, partitions: PARTITIONS, cleanupPolicy: topic === INPUT ? 'delete' : 'compact' })),
  );
  const handled = Array.from({ length: PARTITIONS }, () => []);
  let slow = false;
  const member = () => new Member({ kafkaLog, ProcessRunner, kafkaBrokers, handled, isSlow: () => slow });
  const writing = keepWriting(kafka);
  const stay = [member(), member()];
  await shared(stay);
  const gaps = { undisturbed: [], join: [], leave: [], moving: [], newcomerMs: [], slow: [], slowOwner: [] };
  for (let round = 1; round <= ROUNDS; round++) {
    log(`round ${round} of ${ROUNDS}`);
    const quietFrom = performance.now();
    await sleep(UNDISTURBED_MS);
    gaps.undisturbed.push(...longest(handled, all(), quietFrom));
    const joinedAt = performance.now();
    const comes = member();
    const moved = await comes.works();
    gaps.newcomerMs.push(performance.now() - joinedAt);
    await shared([...stay, comes]);
    await sleep(200);
    gaps.join.push(
      ...longest(
        handled,
        all().filter((n) => !moved.includes(n)),
        joinedAt,
      ),
    );
    gaps.moving.push(...longest(handled, moved, joinedAt));
    const leftAt = performance.now();
    await comes.stop();
    await shared(stay);
    await sleep(200);
    gaps.leave.push(
      ...longest(
        handled,
        all().filter((n) => !moved.includes(n)),
        leftAt,
      ),
    );
  }
  for (let round = 1; round <= SLOW_ROUNDS; round++) {
    log(`slow record ${round} of ${SLOW_ROUNDS}`);
    const owner = stay.find((of) => of.partitions.includes(0));
    slow = true;
    await owner.slowBegins();
    slow = false;
    const from = performance.now();
    const comes = member();
    await sleep(SLOW_MS);
    const others = stay.filter((of) => of !== owner).flatMap(({ partitions }) => partitions);
    gaps.slow.push(...longest(handled, others, from));
    gaps.slowOwner.push(
      ...longest(
        handled,
        owner.partitions.filter((n) => n !== 0),
        from,
      ),
    );
    await shared([...stay, comes]);
    await comes.stop();
    await shared(stay);
  }
  await writing.stop();
  await Promise.all(stay.map((of) => of.stop()));
  await kafka.close();
  return {
    setup: { members: 3, partitions: PARTITIONS, rounds: ROUNDS, handlerMs: HANDLER_MS, slowRecordMs: SLOW_MS },
    ours: {
      ...told('undisturbed', gaps.undisturbed),
      ...told('staysAtJoin', gaps.join),
      ...told('staysAtLeave', gaps.leave),
      ...told('movesAtJoin', gaps.moving),
      ...told('newcomerFirst', gaps.newcomerMs),
      ...told('staysBesideSlowMember', gaps.slow),
      ...told('staysBesideSlowRecord', gaps.slowOwner),
    },
  };
}

class Member {
  #log;
  #runner;
  #began;
  #slow;

  constructor({ kafkaLog, ProcessRunner, kafkaBrokers, handled, isSlow }) {
    this.#log = kafkaLog({ brokers: kafkaBrokers });
    const works = new Promise((resolve) => (this.#began = resolve));
    this.works = async () => {
      await works;
      return this.partitions;
    };
    this.#runner = new ProcessRunner(
      {
        name: NAME,
        inputs: [INPUT],
        onRecord: async ({ partition }, context) => {
          if (partition === 0 && isSlow() && this.#slow !== undefined) {
            this.#slow();
            this.#slow = undefined;
            await sleep(SLOW_MS);
          } else await sleep(HANDLER_MS);
          context.state.put('last', Buffer.from(String(partition)));
          handled[partition].push(performance.now());
          this.#began();
        },
      },
      { log: this.#log, logger: { log: () => {}, warn: console.error, error: console.error } },
    );
  }

  get partitions() {
    return [...this.#runner.tasks.keys()];
  }

  slowBegins() {
    return new Promise((resolve) => (this.#slow = resolve));
  }

  async stop() {
    await this.#runner.stop();
    await this.#log.close();
  }
}

const all = () => Array.from({ length: PARTITIONS }, (_, n) => n);

function keepWriting(kafka) {
  const producer = kafka.producer();
  let stopped = false;
  const writing = (async () => {
    while (!stopped) {
      await producer.send(all().map((partition) => ({ topic: INPUT, partition, key: Buffer.from('k'), value: null })));
      await sleep(LOAD_MS);
    }
    await producer.close();
  })();
  return {
    stop() {
      stopped = true;
      return writing;
    },
  };
}

/** Resolves when the members have all partitions between them, evenly. */
async function shared(members) {
  const even = PARTITIONS / members.length;
  while (members.some(({ partitions }) => partitions.length !== even)) await sleep(5);
}

/** Per partition the longest time without a handled record since `from`, until now. */
function longest(handled, partitions, from) {
  return partitions.map((partition) => {
    const times = handled[partition];
    const first = times.findLastIndex((at) => at <= from);
    const since = [...times.slice(Math.max(0, first)), performance.now()];
    return Math.max(...since.slice(1).map((at, i) => at - since[i]));
  });
}

function told(name, values) {
  const sorted = values.toSorted((a, b) => a - b);
  const [p50, max] = [sorted[Math.floor(sorted.length / 2)], sorted.at(-1)].map(Math.round);
  return { [`${name}P50Ms`]: p50, [`${name}MaxMs`]: max };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
