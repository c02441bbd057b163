// What MeasuredCapture runs: node measured-child.testing.mjs '<json>'.
// Told `rows <n>` it answers, once so many rows are published, with its figures since the last answer.
import { createInterface } from 'node:readline';
import { Capture } from '@headwater/cdc';
import { kafkaLog } from '@headwater/kafka';

const { brokers, ...options } = JSON.parse(process.argv[2]);
const capture = new Capture({ ...options, log: kafkaLog({ brokers }) });
capture.finished.catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
let [peakRssMb, heldMs] = [0, 0];
let [at, cpu] = [performance.now(), process.cpuUsage()];
setInterval(() => {
  const [now, used] = [performance.now(), process.cpuUsage(cpu)];
  // A gap in which this process did not run is the machine's, not the capture's.
  heldMs = Math.max(heldMs, Math.min(now - at, (used.user + used.system) / 1_000));
  peakRssMb = Math.max(peakRssMb, process.memoryUsage.rss() / 1_048_576);
  [at, cpu] = [performance.now(), process.cpuUsage()];
}, 2);
await capture.start();
[peakRssMb, heldMs] = [0, 0];
process.stdout.write('{"started":true}\n');
for await (const line of createInterface(process.stdin)) {
  const rows = Number(line.split(' ')[1]);
  while (capture.status().rows < rows) await new Promise((resolve) => setTimeout(resolve, 20));
  process.stdout.write(`${JSON.stringify({ rows, peakRssMb, heldMs })}\n`);
  [peakRssMb, heldMs] = [0, 0];
}
await capture.stop();
process.exit(0);
