// A processor with a large state, in a process of its own: prints one line of JSON when it runs, ends when its input is closed.
import { ProcessRunner, memoryStore } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { levelState } from '@headwater/state-level';

const { brokers, name, input, store, directory, probe } = JSON.parse(process.argv[2]);
const startedAt = performance.now();
const cpuBefore = process.cpuUsage();
const log = kafkaLog({ brokers });
let openedAt;
const open = store === 'level' ? levelState({ directory }) : memoryStore;
const runner = new ProcessRunner(
  { name, inputs: [input], onRecord: () => undefined },
  {
    log,
    logger: { log: () => undefined, warn: console.error, error: console.error },
    // Static: after a kill it is let in again at once, as a restarted service with a stable name is.
    group: { instanceId: 'bench', sessionTimeoutMs: 30_000 },
    openStore: (task) => {
      openedAt ??= performance.now();
      return open(task);
    },
  },
);
process.stdin.resume();
process.stdin.once('end', () => void runner.stop().then(() => log.close()));
const watch = setInterval(() => {
  if (runner.health().status !== 'up') return;
  clearInterval(watch);
  const now = performance.now();
  if (runner.get(probe).value?.length !== 200) throw new Error(`${probe} is not in the state`);
  const cpu = process.cpuUsage(cpuBefore);
  const peakRssMb = Math.round(process.resourceUsage().maxRSS / 1024);
  const cpuSeconds = (cpu.user + cpu.system) / 1e6;
  console.log(JSON.stringify({ upMs: now - startedAt, restoreMs: now - openedAt, cpuSeconds, peakRssMb }));
}, 2);
