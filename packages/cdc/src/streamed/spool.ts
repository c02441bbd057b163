import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { spoolFailed } from './spool.errors.js';

/** One frame of the wire, with a message that begins with its type and the id of its (sub)transaction. */
export interface StreamedFrame {
  readonly bytes: Buffer;
  readonly frameStart: number;
  readonly start: number;
  readonly end: number;
}

/** What spools share. */
export interface SpoolStore {
  /** A new file for one transaction. Throws CDC_SPOOL_FAILED or CDC_SPOOL_UNUSABLE. */
  create(xid: number): Promise<SpoolFile>;
  /** A buffer of at least so many bytes. */
  buffer(bytes: number): Buffer;
  giveBack(buffer: Buffer): void;
  /** A key of this connection, and a number that it was never used with. */
  readonly key: Buffer;
  nextNonce(): Buffer;
}

export interface SpoolFile {
  readonly path: string;
  readonly handle: FileHandle;
  remove(): Promise<void>;
}

/** What was written at once: `length` bytes of it still count. */
interface Segment {
  readonly at: number;
  readonly written: number;
  readonly nonce: Buffer;
  readonly tag: Buffer;
  length: number;
}

const XID_BYTES = 4;
const NOTHING: Buffer = Buffer.alloc(0);
const CIPHER = 'aes-256-gcm';

/**
 * The messages of one streamed transaction in their order, as frames of protocol version 1: in memory, and what was spilled in a file before it. The
 * file is of use to this object alone: its key is in memory only, so that a file that is left behind tells nothing, and one that was damaged is
 * refused (CDC_SPOOL_FAILED).
 */
export class Spool {
  readonly #segments: Segment[] = [];
  #file: SpoolFile | undefined;
  /** Bytes in segments that count. */
  #spilled = 0;
  #memory = NOTHING;
  #used = 0;

  constructor(
    readonly xid: number,
    private readonly store: SpoolStore,
  ) {}

  get length(): number {
    return this.#spilled + this.#used;
  }

  get inMemory(): number {
    return this.#used;
  }

  /** Takes a frame, without the xid of its message. */
  append({ bytes, frameStart, start, end }: StreamedFrame): void {
    const size = end - frameStart - XID_BYTES;
    this.#reserve(size);
    const memory = this.#memory;
    const at = this.#used;
    const head = bytes.copy(memory, at, frameStart, start + 1);
    // A frame's length does not count its type.
    memory.writeUInt32BE(size - 1, at + 1);
    bytes.copy(memory, at + head, start + 1 + XID_BYTES, end);
    this.#used = at + size;
  }

  /** Moves what is in memory to the file. */
  async spill(): Promise<void> {
    const file = (this.#file ??= await this.store.create(this.xid));
    const nonce = this.store.nextNonce();
    const cipher = createCipheriv(CIPHER, this.store.key, nonce);
    const written = cipher.update(this.#memory.subarray(0, this.#used));
    cipher.final();
    const last = this.#segments.at(-1);
    const at = last === undefined ? 0 : last.at + last.written;
    await writeAll(file, written, at);
    this.#segments.push({ at, written: written.length, nonce, tag: cipher.getAuthTag(), length: this.#used });
    this.#spilled += this.#used;
    this.#forget();
  }

  /** Forgets everything from this length on. */
  async truncate(length: number): Promise<void> {
    if (length >= this.#spilled) {
      this.#used = length - this.#spilled;
      return;
    }
    this.#forget();
    while (this.#spilled > length) {
      const last = this.#segments.at(-1)!;
      const cut = Math.min(last.length, this.#spilled - length);
      last.length -= cut;
      this.#spilled -= cut;
      if (last.length === 0) this.#segments.pop();
    }
    const end = this.#segments.at(-1);
    const file = this.#file!;
    try {
      await file.handle.truncate(end === undefined ? 0 : end.at + end.written);
    } catch (error) {
      throw spoolFailed(error, file.path);
    }
  }

  /** The frames, in pieces cut anywhere; each piece is valid until the next is asked for. */
  async *pieces(): AsyncGenerator<Buffer> {
    for (const { at, written, nonce, tag, length } of this.#segments) {
      const sealed = await readAll(this.#file!, at, written);
      const decipher = createDecipheriv(CIPHER, this.store.key, nonce).setAuthTag(tag);
      const piece = decipher.update(sealed);
      try {
        decipher.final();
      } catch (error) {
        throw spoolFailed(error, this.#file!.path);
      }
      yield piece.subarray(0, length);
    }
    yield this.#memory.subarray(0, this.#used);
  }

  /** Forgets everything, and removes the file. */
  async remove(): Promise<void> {
    this.#forget();
    this.#segments.length = 0;
    this.#spilled = 0;
    const file = this.#file;
    this.#file = undefined;
    await file?.remove();
  }

  #forget(): void {
    this.store.giveBack(this.#memory);
    this.#memory = NOTHING;
    this.#used = 0;
  }

  #reserve(bytes: number): void {
    const needed = this.#used + bytes;
    if (needed <= this.#memory.length) return;
    const larger = this.store.buffer(Math.max(needed, 2 * this.#memory.length));
    this.#memory.copy(larger, 0, 0, this.#used);
    this.store.giveBack(this.#memory);
    this.#memory = larger;
  }
}

async function writeAll({ handle, path }: SpoolFile, bytes: Buffer, at: number): Promise<void> {
  try {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done);
      done += bytesWritten;
    }
  } catch (error) {
    throw spoolFailed(error, path);
  }
}

async function readAll({ handle, path }: SpoolFile, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  try {
    for (let done = 0; done < length;) {
      const { bytesRead } = await handle.read(bytes, done, length - done, at + done);
      if (bytesRead === 0) throw new Error(`${length - done} bytes are missing at ${at + done}`);
      done += bytesRead;
    }
  } catch (error) {
    throw spoolFailed(error, path);
  }
  return bytes;
}
