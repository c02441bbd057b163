const SIZE_BYTES = 4;
/** The correlation id is part of every answer. */
const LEAST_BYTES = 4;
/** Far above any answer. The first bytes of HTTP, and of a refusal by TLS, claim more. */
const MOST_BYTES = 256 << 20;

/**
 * Cuts what one connection brings into frames, each with its size before it (protocol guide, "Protocol Primitives"), in memory of its own. Bytes are copied as
 * they come: where they came in can be read into again at once, and stays in the processor's cache.
 */
export class Frames {
  readonly #onFrame: (frame: Buffer) => void;
  readonly #size = Buffer.alloc(SIZE_BYTES);
  #frame = this.#size;
  #filled = 0;

  /** Each frame goes to `onFrame`, its size included. */
  constructor(onFrame: (frame: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** Copies `chunk`. Throws RangeError when it claims a size that no answer has; nothing can be read behind that. */
  push(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      const copied = chunk.copy(this.#frame, this.#filled, at);
      at += copied;
      this.#filled += copied;
      if (this.#filled < this.#frame.length) return;
      if (this.#frame === this.#size) this.#begin();
      else this.#end();
    }
  }

  #begin(): void {
    const size = this.#size.readInt32BE(0);
    if (size < LEAST_BYTES || size > MOST_BYTES)
      throw new RangeError(
        `an answer claims a size of ${size} bytes: no Kafka broker listens there, it wants TLS, or a batch is larger than ${MOST_BYTES}`,
      );
    this.#frame = Buffer.allocUnsafe(SIZE_BYTES + size);
    this.#size.copy(this.#frame);
  }

  #end(): void {
    const frame = this.#frame;
    this.#frame = this.#size;
    this.#filled = 0;
    this.#onFrame(frame);
  }
}
