// One of the processes of the soundness run, to be killed and paused: node worker.mjs '<json>'. Copies records with their count per key.
import { ProcessRunner } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';

const { brokers, proxies, name, input, output, instanceId, clientId, sessionTimeoutMs, transactionTimeoutMs } =
  JSON.parse(process.argv[2]);

const log = kafkaLog({
  brokers,
  clientId,
  requestTimeoutMs: 1_000,
  connect: (host, port) => ({ host, port: proxies[port] ?? port }),
});
// Short times, so that a minute holds many losses.
const impatient = {
  ...log,
  writer: (of) => log.writer({ ...of, transactionTimeoutMs }),
  group: (of) => log.group({ ...of, sessionTimeoutMs }),
};
const warn = (line) => process.stderr.write(`${clientId}: ${line}\n`);

const runner = new ProcessRunner(
  {
    name,
    inputs: [input],
    onRecord({ key, value }, context) {
      const count = String(Number(context.state.get(String(key)) ?? 0) + 1);
      context.state.put(String(key), Buffer.from(count));
      context.send({ topic: output, key, value: Buffer.from(`${String(value)} ${count}`) });
    },
  },
  // Small transactions: there are many ends to lose.
  { log: impatient, logger: { log: () => undefined, warn, error: warn }, instanceId, maxBatchRecords: 8 },
);
// Asked when the run fails.
process.on('message', () => warn(JSON.stringify(runner.health())));
// The channel ends the process when the run is killed.
process.on('disconnect', () => process.exit(1));
