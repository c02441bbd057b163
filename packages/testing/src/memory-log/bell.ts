import type { Clock } from '@headwater/core';

/** Wakes whoever waits for a change. A change before the wait is not remembered: look first, then wait. */
export class Bell {
  readonly #waiting = new Set<() => void>();

  ring(): void {
    for (const wake of this.#waiting) wake();
  }

  /** Resolves at the next ring. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        resolve();
      };
      this.#waiting.add(wake);
    });
  }

  /** Resolves at the next ring, after `ms`, or when a signal aborts. Never rejects. */
  async wait(clock: Clock, ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
    const over = new AbortController();
    const wake = () => over.abort(WOKEN);
    for (const signal of signals) {
      if (signal?.aborted === true) wake();
      signal?.addEventListener('abort', wake);
    }
    this.#waiting.add(wake);
    await clock.wait(ms, over.signal);
    this.#waiting.delete(wake);
    for (const signal of signals) signal?.removeEventListener('abort', wake);
  }
}

/** A reason of its own: the default one would be an error with a stack, made for every wait. */
const WOKEN = 'woken';
