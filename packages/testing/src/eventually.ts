import { setTimeout as delay } from 'node:timers/promises';

/**
 * Repeats `attempt` until it passes and returns its result. When the time is over the error of the last attempt is thrown,
 * so that a failing test shows what was still wrong. An attempt that hangs counts as failed when the time is over.
 */
export async function eventually<T>(
  attempt: () => T | Promise<T>,
  { timeoutMs = 15_000, intervalMs = 25 }: { readonly timeoutMs?: number; readonly intervalMs?: number } = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown = new Error(`eventually: the first attempt did not settle within ${timeoutMs} ms`);
  for (;;) {
    const leftMs = deadline - performance.now();
    const stop = new AbortController();
    try {
      return await Promise.race([
        (async () => attempt())(),
        delay(Math.max(leftMs, 1), undefined, { signal: stop.signal }).then(() => Promise.reject(last)),
      ]);
    } catch (error) {
      last = error;
    } finally {
      stop.abort();
    }
    if (performance.now() + intervalMs >= deadline) throw last;
    await delay(intervalMs);
  }
}
