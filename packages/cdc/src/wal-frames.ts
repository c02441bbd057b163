import { CaptureError } from './cdc.errors.js';
import type { Lsn } from './lsn.js';

const COPY_DATA = 0x64;
const XLOG_DATA = 0x77;
const KEEPALIVE = 0x6b;
const FRAME_HEADER = 5;
/** Kind, start and end LSN, clock: in front of a pgoutput message. */
const XLOG_HEADER = 25;
const KEEPALIVE_BYTES = 18;
/** No message of Postgres is longer than 1 GiB. */
const MAX_FRAME_BYTES = 0x4000_0000;
/** A longer straddling frame gets a buffer of its own, given up with it. */
const CARRY_BYTES = 65_536;

export type FrameKind = 'message' | 'keepalive' | 'other';

/**
 * Cuts the bytes of a replication connection into frames, in place: after `next` the frame lies in `bytes` from `start` to `end`, and is
 * valid until the next call. A frame that straddles reads is put together in a buffer of its own.
 */
export class WalFrames {
  bytes: Buffer = NOTHING;
  start = 0;
  end = 0;
  #chunk: Buffer = NOTHING;
  #at = 0;
  #frameAt = 0;
  #spare: Buffer = Buffer.allocUnsafeSlow(CARRY_BYTES);
  #carry: Buffer = this.#spare;
  /** Bytes of a straddling frame that are there. */
  #carried = 0;

  /** The next bytes. Only once `next` has returned undefined. */
  feed(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#at = 0;
  }

  /**
   * The kind of the next frame, or undefined: more bytes are needed. `message`: the frame holds a pgoutput message alone; `keepalive`: the
   * keepalive's body; `other`: a whole frame that is not replication data, with its header. Throws CDC_PROTOCOL.
   */
  next(): FrameKind | undefined {
    if (this.#carried > 0) return this.#straddling();
    const at = this.#at;
    const left = this.#chunk.length - at;
    if (left === 0) return undefined;
    const length = left < FRAME_HEADER ? 0 : this.#frameLength(this.#chunk, at);
    if (length === 0 || length > left) {
      this.#keep(left);
      return undefined;
    }
    this.#at = at + length;
    this.bytes = this.#chunk;
    return this.#open(at, length);
  }

  /** What was fed and not read, when no frame straddles. */
  rest(): Buffer {
    const rest = this.#chunk.subarray(this.#at);
    this.#at = this.#chunk.length;
    return rest;
  }

  /** Where the frame of the message begins. */
  get frameStart(): number {
    return this.#frameAt;
  }

  /** Where the WAL stood: of the message, or of the keepalive. */
  get lsn(): Lsn {
    return this.bytes.readBigUInt64BE(this.#frameAt + FRAME_HEADER + 1) as Lsn;
  }

  get replyRequested(): boolean {
    return this.bytes[this.#frameAt + FRAME_HEADER + KEEPALIVE_BYTES - 1] === 1;
  }

  #frameLength(bytes: Buffer, at: number): number {
    const length = bytes.readUInt32BE(at + 1);
    if (length < 4 || length > MAX_FRAME_BYTES) throw damaged(`a frame claims ${length} bytes`);
    return length + 1;
  }

  #open(at: number, length: number): FrameKind {
    this.#frameAt = at;
    this.end = at + length;
    if (this.bytes[at] !== COPY_DATA) {
      this.start = at;
      return 'other';
    }
    const kind = this.bytes[at + FRAME_HEADER];
    const body = length - FRAME_HEADER;
    if (kind === XLOG_DATA && body >= XLOG_HEADER) {
      this.start = at + FRAME_HEADER + XLOG_HEADER;
      return 'message';
    }
    if (kind === KEEPALIVE && body === KEEPALIVE_BYTES) {
      this.start = at + FRAME_HEADER;
      return 'keepalive';
    }
    throw damaged(`replication data of kind ${kind ?? 'none'} with ${body} bytes`);
  }

  /** Keeps the beginning of a frame for the next chunk. */
  #keep(left: number): void {
    this.#carry = this.#spare;
    this.#carried = 0;
    this.#take(left);
  }

  #straddling(): FrameKind | undefined {
    if (this.#carried < FRAME_HEADER) this.#take(FRAME_HEADER - this.#carried);
    if (this.#carried < FRAME_HEADER) return undefined;
    const length = this.#frameLength(this.#carry, 0);
    this.#take(length - this.#carried);
    if (this.#carried < length) return undefined;
    this.#carried = 0;
    this.bytes = this.#carry;
    return this.#open(0, length);
  }

  /** Takes up to so many bytes of the chunk. */
  #take(wanted: number): void {
    const count = Math.min(wanted, this.#chunk.length - this.#at);
    const needed = this.#carried + count;
    if (needed > this.#carry.length) {
      // By what has arrived, never by what a frame claims.
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#carry.length));
      this.#carry.copy(larger, 0, 0, this.#carried);
      this.#carry = larger;
    }
    this.#chunk.copy(this.#carry, this.#carried, this.#at, this.#at + count);
    this.#carried = needed;
    this.#at += count;
  }
}

const NOTHING = Buffer.alloc(0);

function damaged(what: string): CaptureError {
  return new CaptureError(
    'CDC_PROTOCOL',
    `${what} in the replication stream. Nothing of it was published or acknowledged. ` +
      'Check that nothing between capture and the server alters bytes, then start capture again.',
  );
}
