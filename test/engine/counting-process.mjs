// A processor in a process of its own, to be killed: node counting-process.mjs '<json>'. Running sums per key, and timers.
import { ProcessRunner } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';

// With `trace` it names every record it handles, with `port` it reaches the brokers through a proxy there.
const { brokers, name, input, output, instanceId, clientId, requestTimeoutMs, port, trace } = JSON.parse(
  process.argv[2],
);
const text = (key, value) => ({ topic: output, key: Buffer.from(key), value: Buffer.from(value) });
const logger = { log: () => undefined, error: () => undefined, warn: (line) => process.stderr.write(`${line}\n`) };

const kafka = {
  brokers,
  ...(clientId === undefined ? {} : { clientId }),
  ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }),
  ...(port === undefined ? {} : { connect: () => ({ host: '127.0.0.1', port }) }),
};

const runner = new ProcessRunner(
  {
    name,
    inputs: [input],
    onRecord(record, context) {
      if (trace) process.stdout.write(`handled ${record.partition}/${record.offset}\n`);
      const key = record.key.toString();
      const [kind, number] = record.value.toString().split(' ');
      if (kind === 'alarm') return context.timers.set(key, Number(number));
      const sum = String(Number(context.state.get(key)?.toString() ?? '0') + Number(number));
      context.state.put(key, Buffer.from(sum));
      context.send(text(key, sum));
    },
    onTimer(timer, context) {
      context.send(text(timer.id, `${timer.atMs} ${context.now}`));
    },
  },
  { log: kafkaLog(kafka), logger, instanceId, maxBatchRecords: 40 },
);

const started = setInterval(() => {
  if (runner.health().status !== 'up') return;
  clearInterval(started);
  process.stdout.write('up\n');
}, 5);
