const TICK_MS = 50;

/** Measures how long this process did not run: its event loop was blocked, or it was stopped. What is shorter than a tick does not count. */
export class Standstill {
  #ms = 0;
  #tickedAt = performance.now();
  readonly #timer = setInterval(() => this.#tick(), TICK_MS).unref();

  /** In all so far, with what this process has only just returned from. */
  get ms(): number {
    this.#tick();
    return this.#ms;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = performance.now();
    const lateMs = now - this.#tickedAt - TICK_MS;
    if (lateMs > TICK_MS) this.#ms += lateMs;
    this.#tickedAt = now;
  }
}
