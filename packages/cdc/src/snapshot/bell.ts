import type { Clock } from '@headwater/core';

/** Lets any number of loops wait until something has changed. A ring that comes before the wait is not lost: take the `ticket` before looking. */
export class Bell {
  #rings = 0;
  readonly #waiting = new Set<() => void>();

  get ticket(): number {
    return this.#rings;
  }

  ring(): void {
    this.#rings += 1;
    for (const wake of this.#waiting) wake();
  }

  /** Resolves at the first ring after the ticket was taken, after `ms`, or when the signal aborts. */
  since(ticket: number, clock: Clock, ms: number | undefined, signal: AbortSignal): Promise<void> {
    if (this.#rings !== ticket || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const over = new AbortController();
      // By hand: Node links only the last listener to the `signal` of its options; the garbage collector takes the links of the others.
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        over.abort();
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake);
      if (ms !== undefined) void clock.wait(ms, over.signal).then(wake);
    });
  }
}
