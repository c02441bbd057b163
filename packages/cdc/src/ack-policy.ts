import { CaptureError } from './cdc.errors.js';
import { formatLsn, maxLsn, minLsn } from './lsn.js';
import type { Lsn } from './lsn.js';

/**
 * What may be acknowledged on one connection. P3: never above the end LSN of a committed position; P4: never above what this
 * connection received (Postgres would take `FFFF/0` and skip everything up to it); P18: nothing of which it is not known that the publication
 * chose what was sent of it.
 */
export class AckPolicy {
  #received: Lsn;
  #published: Lsn;
  #covered: Lsn;

  /** `slot`: confirmed_flush_lsn at the start of the connection. */
  constructor(slot: Lsn) {
    this.#received = slot;
    this.#published = slot;
    this.#covered = slot;
  }

  /** The committed position ends here; it may lie above what this connection has received so far. */
  resume(position: Lsn): void {
    this.#published = maxLsn(this.#published, position);
  }

  received(lsn: Lsn): void {
    this.#received = maxLsn(this.#received, lsn);
  }

  /** The log has committed a position that ends here. */
  published(lsn: Lsn): void {
    // A resumed position lies above what this connection has received while the server sends again what was published.
    if (lsn <= this.#published) return;
    if (lsn > this.#received) {
      throw new CaptureError(
        'CDC_ACK_AHEAD',
        `asked to acknowledge ${formatLsn(lsn)} but only ${formatLsn(this.#received)} was received. Nothing was acknowledged; report this as a defect.`,
        { asked: formatLsn(lsn), received: formatLsn(this.#received) },
      );
    }
    this.#published = maxLsn(this.#published, lsn);
  }

  /** A look at the publication begins: what is committed by now was received before, and is covered when it is still there. */
  get coverable(): Lsn {
    return minLsn(this.#published, this.#received);
  }

  /** The publication was there when a look began at which this was `coverable`. */
  covered(lsn: Lsn): void {
    this.#covered = maxLsn(this.#covered, lsn);
  }

  /** Whether something is published, and only a look at the publication keeps it from being acknowledged. */
  get waits(): boolean {
    return this.lsn < this.coverable;
  }

  /** The raw end LSN to send, never one more. */
  get lsn(): Lsn {
    return minLsn(this.coverable, this.#covered);
  }
}
