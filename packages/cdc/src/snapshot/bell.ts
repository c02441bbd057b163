import type { Clock } from '@headwater/core';

/** Lets any number of loops wait until something has changed. A ring that comes before the wait is not lost: take the `ticket` before looking. */
export class Bell {
  #rings = 0;
  #waiting: (() => void)[] = [];

  get ticket(): number {
    return this.#rings;
  }

  ring(): void {
    this.#rings += 1;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Resolves at the first ring after the ticket was taken, after `ms`, or when the signal aborts. */
  async since(ticket: number, clock: Clock, ms: number | undefined, signal: AbortSignal): Promise<void> {
    if (this.#rings !== ticket || signal.aborted) return;
    const over = new AbortController();
    const waits = [new Promise<void>((resolve) => this.#waiting.push(resolve))];
    if (ms !== undefined) waits.push(clock.wait(ms, over.signal));
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true, signal: over.signal }),
    );
    await Promise.race([...waits, aborted]);
    over.abort();
  }
}
