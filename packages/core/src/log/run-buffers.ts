/** 4 KiB, 16 KiB … 1 MiB are used again; anything larger is made to measure. */
const SMALLEST = 4_096;
const LARGEST = 1_048_576;
/** What may lie unused. */
const MAX_IDLE_BYTES = 16 * 1_048_576;

/** Buffers that are used again: fresh ones would each be zero pages to fault in, and garbage that young collections do not see. */
export class RunBuffers {
  readonly #idle = new Map<number, Buffer[]>();
  #idleBytes = 0;

  /** A buffer of at least this size, with whatever it held. */
  take(bytes: number): Buffer {
    const size = sizeOf(bytes);
    const found = this.#idle.get(size)?.pop();
    if (found === undefined) return Buffer.allocUnsafeSlow(size);
    this.#idleBytes -= size;
    return found;
  }

  give(buffer: Buffer): void {
    const size = buffer.length;
    if (size !== sizeOf(size) || size > LARGEST || this.#idleBytes + size > MAX_IDLE_BYTES) return;
    this.#idleBytes += size;
    const idle = this.#idle.get(size);
    if (idle === undefined) this.#idle.set(size, [buffer]);
    else idle.push(buffer);
  }
}

function sizeOf(bytes: number): number {
  let size = SMALLEST;
  while (size < bytes) size *= 4;
  return size <= LARGEST ? size : bytes;
}
