/** Rate above which a backlog is being read: the server then has the next bytes ready whenever it is asked. */
const BACKLOG_BYTES_PER_MS = 4_096;
const WINDOW_MS = 8;
/** How long the socket rests after a read of a backlog. */
export const REST_MS = 1;

/**
 * Whether the socket should rest after a read. Over TCP the server's walsender sends row by row and is slowed by a reader that takes every
 * row at once: resting 1 ms lets bytes gather, for fewer and larger reads on both sides. A line that is not behind is never rested.
 */
export class Pace {
  #windowStartMs = -Infinity;
  #windowBytes = 0;
  #backlog = false;

  /** Called for every read. Returns for how many milliseconds to rest, 0: not at all. */
  afterRead(bytes: number, nowMs: number): number {
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#backlog = this.#windowBytes >= BACKLOG_BYTES_PER_MS * (nowMs - this.#windowStartMs);
      this.#windowStartMs = nowMs;
      this.#windowBytes = 0;
    }
    this.#windowBytes += bytes;
    return this.#backlog || this.#windowBytes >= BACKLOG_BYTES_PER_MS * WINDOW_MS ? REST_MS : 0;
  }
}
