const SMALLEST_BYTES = 4_096;

/**
 * Buffers that are used again: fresh ones would each be zero pages to fault in, which takes longer than filling them, and garbage that young
 * collections do not see. Sizes are the powers of two from 4 KiB to `largestBytes`; anything larger is made to measure.
 */
export class BufferPool {
  readonly #idle = new Map<number, Buffer[]>();
  #idleBytes = 0;

  /** `maxIdleBytes`: what may lie unused. */
  constructor(
    private readonly largestBytes = 1_048_576,
    private readonly maxIdleBytes = 16 * 1_048_576,
  ) {}

  /** A buffer of at least this size, with whatever it held. */
  take(bytes: number): Buffer {
    const size = this.#sizeOf(bytes);
    const found = this.#idle.get(size)?.pop();
    if (found === undefined) return Buffer.allocUnsafeSlow(size);
    this.#idleBytes -= size;
    return found;
  }

  /** Nobody may look at it any more: the next one who takes it writes over it. */
  give(buffer: Buffer): void {
    const size = buffer.length;
    if (size !== this.#sizeOf(size) || size > this.largestBytes || this.#idleBytes + size > this.maxIdleBytes) return;
    this.#idleBytes += size;
    const idle = this.#idle.get(size);
    if (idle === undefined) this.#idle.set(size, [buffer]);
    else idle.push(buffer);
  }

  #sizeOf(bytes: number): number {
    let size = SMALLEST_BYTES;
    while (size < bytes) size *= 2;
    return size <= this.largestBytes ? size : bytes;
  }
}
