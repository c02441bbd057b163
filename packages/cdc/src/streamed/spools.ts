import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '@headwater/core';
import { Spool } from './spool.js';
import type { SpoolFile, SpoolStore, StreamedFrame } from './spool.js';
import { spoolFailed } from './spool.errors.js';

/** Bytes of all open streamed transactions that may be in memory. */
const MEMORY_BYTES = 1_048_576;
const SMALLEST_BUFFER = 16_384;
const SUFFIX = '.spool';

/**
 * The spools of one connection, and the directory with their files, `<xid>-<random>.spool`. The files are scratch: what a predecessor left is
 * removed, and nothing is ever read that this object has not written.
 */
export class Spools implements SpoolStore {
  readonly key = randomBytes(32);
  readonly #spools = new Set<Spool>();
  #nonces = 0n;
  #inMemory = 0;
  #spare: Buffer | undefined;

  private constructor(
    private readonly directory: string,
    private readonly memoryBytes: number,
  ) {}

  /** Only by the owner of the slot: no other process needs files of this directory. Throws CDC_SPOOL_UNUSABLE. */
  static async open(directory: string, memoryBytes = MEMORY_BYTES): Promise<Spools> {
    const spools = new Spools(directory, memoryBytes);
    try {
      await spools.#clear();
      // Told at the start, not by the first large transaction.
      await (await spools.create(0)).remove();
    } catch (error) {
      throw spoolFailed(error, directory);
    }
    return spools;
  }

  add(xid: number): Spool {
    const spool = new Spool(xid, this);
    this.#spools.add(spool);
    return spool;
  }

  /** Returns a promise only when something has to be written to a file. */
  append(spool: Spool, frame: StreamedFrame): Promise<void> | undefined {
    const before = spool.inMemory;
    spool.append(frame);
    this.#inMemory += spool.inMemory - before;
    return this.#inMemory > this.memoryBytes ? this.#spill() : undefined;
  }

  async truncate(spool: Spool, length: number): Promise<void> {
    await this.#changed(spool, spool.truncate(length));
  }

  async remove(spool: Spool): Promise<void> {
    this.#spools.delete(spool);
    await this.#changed(spool, spool.remove());
  }

  /** Removes all files, and the directory when nobody else has one in it. Never rejects. */
  async close(): Promise<void> {
    for (const spool of this.#spools) await this.remove(spool).catch(() => {});
    await rmdir(this.directory).catch(() => {});
  }

  async create(xid: number): Promise<SpoolFile> {
    const path = join(this.directory, `${xid}-${randomBytes(8).toString('hex')}${SUFFIX}`);
    try {
      // Also when it was there before: whoever cleans temporary files may have taken it.
      await mkdir(this.directory, { recursive: true, mode: 0o700 });
      const handle = await open(path, 'wx+', 0o600);
      return {
        path,
        handle,
        remove: async () => {
          await handle.close();
          await rm(path, { force: true });
        },
      };
    } catch (error) {
      throw spoolFailed(error, path);
    }
  }

  buffer(bytes: number): Buffer {
    const spare = this.#spare;
    if (spare === undefined || spare.length < bytes) return Buffer.allocUnsafeSlow(Math.max(bytes, SMALLEST_BUFFER));
    this.#spare = undefined;
    return spare;
  }

  giveBack(buffer: Buffer): void {
    const isLarger = buffer.length > (this.#spare?.length ?? 0);
    if (isLarger && buffer.length <= 2 * this.memoryBytes) this.#spare = buffer;
  }

  nextNonce(): Buffer {
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64BE(this.#nonces++, 4);
    return nonce;
  }

  /** The one that holds the most: few large writes, however many transactions are open. */
  async #spill(): Promise<void> {
    let largest: Spool | undefined;
    for (const spool of this.#spools) if (spool.inMemory > (largest?.inMemory ?? -1)) largest = spool;
    await this.#changed(largest!, largest!.spill());
  }

  async #changed(spool: Spool, act: Promise<void>): Promise<void> {
    await act;
    this.#inMemory = 0;
    for (const { inMemory } of this.#spools) this.#inMemory += inMemory;
  }

  async #clear(): Promise<void> {
    const names = await readdir(this.directory).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    });
    for (const name of names) if (name.endsWith(SUFFIX)) await rm(join(this.directory, name), { force: true });
  }
}
