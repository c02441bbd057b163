// Takes one snapshot in a process of its own, so that memory and CPU are the capture's alone: node capture.mjs '<json>'. Tells its parent what it took.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { root, brokers, rows, ...options } = JSON.parse(process.argv[2]);
const load = (name) => import(pathToFileURL(join(root, `packages/${name}/dist/index.js`)).href);
const [{ Capture }, { kafkaLog }] = await Promise.all([load('cdc'), load('kafka')]);
const log = kafkaLog({ brokers });
const capture = new Capture({ ...options, log, onError: (error) => process.stderr.write(`${error.message}\n`) });
let peakRss = 0;
let longestMs = 0;
let last = performance.now();
const sampling = setInterval(() => {
  const now = performance.now();
  longestMs = Math.max(longestMs, now - last - 10);
  last = now;
  peakRss = Math.max(peakRss, process.memoryUsage.rss());
}, 10);
const cpuBefore = process.cpuUsage();
const startedAt = performance.now();
await capture.start();
const seconds = (performance.now() - startedAt) / 1_000;
const cpu = process.cpuUsage(cpuBefore);
clearInterval(sampling);
if (capture.status().rows !== rows) throw new Error(`${capture.status().rows} of ${rows} rows`);
process.send({ seconds, cpuMicros: cpu.user + cpu.system, peakRss, longestMs });
await capture.stop();
await log.close();
