import type { Clock } from './clock.js';

/** A latch for a loop with one waiter: a `wake()` before the wait is not lost, several count as one. */
export class Wakeup {
  readonly #clock: Clock;
  #woken = false;
  #wait: AbortController | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wake(): void {
    this.#woken = true;
    // With a reason, or an error would be made of it.
    this.#wait?.abort('woken');
  }

  /** Resolves at the next `wake()`, or after `ms`. */
  async sleep(ms: number): Promise<void> {
    if (!this.#woken) {
      this.#wait = new AbortController();
      await this.#clock.wait(ms, this.#wait.signal);
      this.#wait = undefined;
    }
    this.#woken = false;
  }
}
