/** Time as a port: wall time for deadlines, elapsed time for durations, and waits that a simulation can take over. */
export interface Clock {
  /** Milliseconds since 1970. Jumps when somebody sets the machine's clock. */
  now(): number;
  /** Milliseconds since some start of its own. Never jumps and never goes back: for durations and time-outs. */
  elapsed(): number;
  /** Resolves after `ms`, or at once when the signal aborts. Never rejects. */
  wait(ms: number, signal?: AbortSignal): Promise<void>;
  /** Lets input, output and other work run, then resolves. */
  breathe(): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  wait: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', done, { once: true });
    }),
  breathe: () => new Promise((resolve) => setImmediate(resolve)),
};

/** Growing pause before attempt `n` (from 1): doubles from `firstMs`, at most `maxMs`, no jitter of its own. */
export function backoffMs(attempt: number, firstMs = 50, maxMs = 5_000): number {
  return Math.min(maxMs, firstMs * 2 ** (attempt - 1));
}
