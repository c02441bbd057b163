import { setTimeout as delay } from 'node:timers/promises';

/** How long a fault lasts that does not last by itself. */
const LASTS_MS = 3_000;

/** These take with them what has piled up: they come first in a round, so that its end tells what the others leave behind. */
const CLEARING = ['killed', 'kafkaReset', 'postgresReset'];

/**
 * Faults of a running capture, each kind once in a random order, then all of them again. `strike` resolves with the name of the fault when that is
 * over; what it did to the capture is not.
 */
export function strikes({ captures, broker, kafka, postgres, sql, slot, random }) {
  const silent = async (proxy) => {
    proxy.pause();
    await delay(LASTS_MS);
    proxy.resume();
  };
  const kinds = {
    killed: async () => {
      await captures.kill();
      captures.start();
    },
    paused: async () => {
      captures.signal('SIGSTOP');
      await delay(LASTS_MS);
      captures.signal('SIGCONT');
    },
    brokerKilled: async () => {
      await broker.kill();
      await delay(LASTS_MS);
      await broker.start();
    },
    walsenderTerminated: () =>
      sql.query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1', [slot]),
    kafkaReset: async () => kafka.cutAll(),
    postgresReset: async () => postgres.cutAll(),
    kafkaSilent: () => silent(kafka),
    postgresSilent: () => silent(postgres),
  };
  const shuffled = (names) => names.map((name) => [random.fraction(), name]).toSorted(([x], [y]) => x - y);
  const round = () => {
    const others = Object.keys(kinds).filter((name) => !CLEARING.includes(name));
    return [...shuffled(CLEARING), ...shuffled(others)].map(([, name]) => name);
  };
  let left = [];
  return {
    kinds: Object.keys(kinds),
    async strike() {
      if (left.length === 0) left = round();
      const fault = left.shift();
      await kinds[fault]();
      return fault;
    },
  };
}
