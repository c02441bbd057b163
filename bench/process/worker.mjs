// The processor under measurement, in a process of its own: running sum and count per key, exactly once.
// node worker.mjs BROKERS NAME INPUT OUTPUT RECORDS: prints one line of JSON when so many records are committed, then ends; 0: runs until it is told to stop.
import { kafkaLog } from '@headwater/kafka';
import { ProcessRunner, memoryStore } from '@headwater/core';
import { levelState } from '@headwater/state-level';

const [brokers, name, input, output, wanted] = process.argv.slice(2);
const records = Number(wanted);
// HEADWATER_BENCH_STATE: a directory for the state; without it the state is in memory.
const directory = process.env.HEADWATER_BENCH_STATE;
const openStore = directory ? levelState({ directory }) : memoryStore;
const log = kafkaLog({ brokers: brokers.split(',') });
let firstAt;
let cpuBefore;
const runner = new ProcessRunner(
  {
    name,
    inputs: [input],
    onRecord(record, context) {
      if (firstAt === undefined) {
        firstAt = performance.now();
        cpuBefore = process.cpuUsage();
      }
      const key = record.key.toString('utf8');
      const { amount, ts } = JSON.parse(record.value.toString('utf8'));
      const before = context.state.get(key);
      const { sum, count } = before === undefined ? { sum: 0, count: 0 } : JSON.parse(before.toString('utf8'));
      const value = Buffer.from(JSON.stringify({ sum: sum + amount, count: count + 1, ts }));
      context.state.put(key, value);
      context.send({ topic: output, key: record.key, value });
    },
  },
  { log, openStore, logger: { log: () => undefined, warn: console.error, error: console.error } },
);
process.stdin.resume();
process.stdin.once('end', () => void finish());
if (records > 0) {
  const watch = setInterval(() => {
    const { handled, transactions } = runner.health().facts;
    if (handled < records) return;
    clearInterval(watch);
    const seconds = (performance.now() - firstAt) / 1000;
    report({ seconds, handled, transactions });
  }, 5);
}

async function finish() {
  await runner.stop();
  await log.close();
}

function report(facts) {
  const cpu = process.cpuUsage(cpuBefore);
  const peakRssMb = Math.round(process.resourceUsage().maxRSS / 1024);
  console.log(JSON.stringify({ ...facts, cpuSeconds: (cpu.user + cpu.system) / 1e6, peakRssMb }));
}
