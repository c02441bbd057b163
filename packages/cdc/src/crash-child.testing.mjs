// oxlint-disable no-restricted-imports -- a fixture of crash.kafka.spec.ts, never part of the package.
// Runs a capture in a process of its own, to be killed: node crash-child.testing.mjs '<json>'
import { Capture } from '@headwater/cdc';
import { kafkaLog } from '@headwater/kafka';

const { brokers, kafkaPort, ...options } = JSON.parse(process.argv[2]);
const connect = () => ({ host: '127.0.0.1', port: kafkaPort });
const capture = new Capture({ ...options, log: kafkaLog({ brokers, connect }) });
capture.finished.catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
await capture.start();
process.stdout.write('started\n');
