// One contestant in its own process: reads commands as lines of JSON, runs them one by one, answers each with a line.
import { createInterface } from 'node:readline';

/** `commands`: each resolves with its own figures; wall clock and CPU of this process are added. */
export async function serve(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line);
    const cpuBefore = process.cpuUsage();
    const startedAt = performance.now();
    const figures = await commands[name](...args);
    const seconds = (performance.now() - startedAt) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, ...figures }));
  }
  process.exit(0);
}

export const VALUE = Buffer.alloc(200, 'v');
/** Made before, in every contestant: keys are the application's business. */
export const KEYS = Array.from({ length: 10_000 }, (_, n) => Buffer.from(`key-${n}`));
