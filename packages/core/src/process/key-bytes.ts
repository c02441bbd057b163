const FEWEST_BYTES = 256;

/** A key as bytes. One object serves for many keys, one after the other; it never holds on to what a key came in. */
export class KeyBytes {
  bytes: Buffer = Buffer.allocUnsafeSlow(FEWEST_BYTES);
  length = 0;

  /** A text stands for its UTF-8 bytes. */
  take(key: string | Uint8Array): void {
    const { length } = key;
    const needed = typeof key === 'string' ? 3 * length : length;
    if (needed > this.bytes.length) this.bytes = Buffer.allocUnsafeSlow(2 * needed);
    if (typeof key === 'string') this.#encode(key);
    else {
      for (let n = 0; n < length; n++) this.bytes[n] = key[n]!;
      this.length = length;
    }
  }

  #encode(key: string): void {
    const { bytes } = this;
    for (let n = 0; n < key.length; n++) {
      const unit = key.charCodeAt(n);
      // A call into the encoder costs more than most keys are long.
      if (unit > 0x7f) {
        this.length = bytes.write(key, 'utf8');
        return;
      }
      bytes[n] = unit;
    }
    this.length = key.length;
  }
}
