// A processor in a process of its own, to be killed: node counting-process.mjs '<json>'. Running sums per key, and timers.
import { ProcessRunner } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';

// With `trace` it names every record it handles, with `port` it reaches the brokers through a proxy there, with `stalls` a record can block
// its event loop or stop it, in the middle of its handler; `group` and `writer` hold their time-outs.
const { brokers, name, input, output, instanceId, clientId, requestTimeoutMs, port, trace, stalls, group, writer } =
  JSON.parse(process.argv[2]);
const text = (key, value) => ({ topic: output, key: Buffer.from(key), value: Buffer.from(value) });
const logger = { log: () => undefined, error: () => undefined, warn: (line) => process.stderr.write(`${line}\n`) };

const kafka = {
  brokers,
  ...(clientId === undefined ? {} : { clientId }),
  ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }),
  ...(port === undefined ? {} : { connect: () => ({ host: '127.0.0.1', port }) }),
};

function stall(ms) {
  if (stalls === 'stopped') return process.kill(process.pid, 'SIGSTOP');
  const until = performance.now() + ms;
  while (performance.now() < until);
}

const kafkaOnly = kafkaLog(kafka);
const log = {
  ...kafkaOnly,
  group: (options) => kafkaOnly.group({ ...options, ...group }),
  writer: (options) => kafkaOnly.writer({ ...options, ...writer }),
};

const runner = new ProcessRunner(
  {
    name,
    inputs: [input],
    onRecord(record, context) {
      if (trace) process.stdout.write(`handled ${record.partition}/${record.offset}\n`);
      const key = record.key.toString();
      const [kind, number] = record.value.toString().split(' ');
      if (kind === 'stall' && stalls !== undefined) stall(Number(number));
      if (kind === 'poison') throw new Error('poison');
      if (kind === 'alarm') return context.timers.set(key, Number(number));
      const sum = String(Number(context.state.get(key)?.toString() ?? '0') + Number(number));
      context.state.put(key, Buffer.from(sum));
      context.send(text(key, sum));
    },
    onTimer(timer, context) {
      context.send(text(timer.id, `${timer.atMs} ${context.now}`));
    },
  },
  { log, logger, instanceId, maxBatchRecords: 40 },
);

const started = setInterval(() => {
  if (runner.health().status !== 'up') return;
  clearInterval(started);
  process.stdout.write('up\n');
}, 5);

// Ends by itself when nothing is left open.
process.once('SIGTERM', async () => {
  clearInterval(started);
  await runner.stop();
  await log.close();
});
