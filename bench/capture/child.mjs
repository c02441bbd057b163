// One capture in a process of its own, so that memory and CPU are its alone. Told by messages from its parent; answers with figures.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [root, setup] = [process.argv[2], JSON.parse(process.argv[3])];
const load = (name) => import(pathToFileURL(join(root, `packages/${name}/dist/index.js`)).href);
const [{ Capture }, { kafkaLog }] = await Promise.all([load('cdc'), load('kafka')]);

const log = kafkaLog({ brokers: setup.brokers });
const capture = new Capture({ ...setup.options, log });
const startedAt = performance.now();
const cpu = process.cpuUsage();

process.on('message', async (message) => {
  if (message === 'mark') mark();
  if (message === 'figures') process.send(figures());
  if (message !== 'stop') return;
  await capture.stop();
  await log.close();
  process.disconnect();
});
capture.finished.catch((error) => {
  process.send({ error: String(error) });
  process.exitCode = 1;
});
let marked = { at: startedAt, cpu };
await capture.start();
process.send({ started: true });
if (setup.rows !== undefined) {
  while (capture.status().rows < setup.rows && capture.status().state !== 'halted')
    await new Promise((resolve) => setTimeout(resolve, 20));
  process.send(figures());
}

function mark() {
  marked = { at: performance.now(), cpu: process.cpuUsage() };
}

function figures() {
  const used = process.cpuUsage(marked.cpu);
  return {
    rows: capture.status().rows,
    seconds: (performance.now() - marked.at) / 1_000,
    cpuMicros: used.user + used.system,
    peakRssMb: Math.round(process.resourceUsage().maxRSS / 1_024),
  };
}
