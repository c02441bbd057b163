// Runs a capture in a process of its own, to be killed: node crash-child.testing.mjs '<json>'. Prints `started`; over an IPC channel it tells
// what happens to it, and its status whenever it is sent anything; `collected`: with the memory that it keeps after a garbage collection.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Capture } from '@headwater/cdc';
import { kafkaLog } from '@headwater/kafka';

const { brokers, kafkaPort, ...options } = JSON.parse(process.argv[2]);
const connect = kafkaPort === undefined ? {} : { connect: () => ({ host: '127.0.0.1', port: kafkaPort }) };
const tell = (message, sent = () => {}) => process.connected && process.send(message, sent);
const fact = ({ code, message }) => ({ code, message });
const logger = { info: (line) => tell({ line }), warn: (line) => tell({ line }) };

const capture = new Capture({
  ...options,
  log: kafkaLog({ brokers, ...connect }),
  logger,
  onError: (error) => tell({ error: fact(error) }),
});
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');
process.on('message', (asked) => {
  if (asked === 'collected') collectGarbage();
  tell({ status: { ...capture.status(), rssBytes: process.memoryUsage.rss() } });
});
// Whoever started it is gone: it must not go on alone.
process.on('disconnect', () => process.exit(1));
capture.finished.catch((error) => tell({ halted: fact(error) }, () => process.exit(1)));
await capture.start().then(
  () => {
    tell({ started: true });
    process.stdout.write('started\n');
  },
  // What it halts with is told above.
  () => {},
);
