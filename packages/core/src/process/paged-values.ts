import { randomInt } from 'node:crypto';
import { bufferView } from '../log/buffer-view.js';
import { halfSipHash } from './half-sip-hash.js';
import { KeyBytes } from './key-bytes.js';
import { PlaceIndex } from './place-index.js';

const PAGE_BYTES = 1 << 18;
/** Before each entry: how long its key is, and its value. */
const HEADER_BYTES = 8;
/** A larger entry gets a page of its own, so that no page is left half empty. */
const LARGEST_SHARED_BYTES = PAGE_BYTES / 4;

interface Page {
  /** From the start of its memory, which is its own. */
  readonly bytes: Buffer;
  /** Where its last entry ends. */
  end: number;
  usedBytes: number;
}

/**
 * A map from text to bytes that keeps keys and values in pages: a string and a Buffer per entry cost more than most entries, and a view of the
 * buffer they came in keeps all of that alive. A key may be given as its UTF-8 bytes. Takes at most about twice the bytes of what it holds, two
 * pages, and 24 to 96 bytes per entry to find it. A value it gave out never changes, whatever is set afterwards.
 *
 * What is replaced stays where it is until less than half of the pages is in use; then the emptiest page is moved to the end (the
 * cleaning of Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992).
 */
export class PagedValues {
  /** Where each entry begins: the number of its page times PAGE_BYTES, and the place in the page. */
  readonly #index = new PlaceIndex();
  readonly #key = new KeyBytes();
  readonly #isKeyAt = (place: number): boolean => this.#holdsKey(place);
  readonly #pages: (Page | undefined)[] = [];
  readonly #free: number[] = [];
  #usedBytes = 0;
  #pageBytes = 0;
  /** The shared page that is being filled. */
  #filling = -1;
  /** Of the key at hand. */
  #hash = 0;

  /** `seed`: two 32-bit numbers that nobody outside knows, so that nobody can choose keys that are slow to find. */
  constructor(private readonly seed: readonly [number, number] = [randomInt(2 ** 32), randomInt(2 ** 32)]) {}

  get size(): number {
    return this.#index.size;
  }

  /** What pages and index take, in use or not. */
  get bytes(): number {
    return this.#pageBytes + this.#index.bytes;
  }

  get(key: string | Buffer): Buffer | undefined {
    const slot = this.#find(key);
    if (slot < 0) return undefined;
    const place = this.#index.place(slot);
    const { bytes } = this.#pages[numberOf(place)]!;
    const at = place % PAGE_BYTES;
    const from = at + HEADER_BYTES + bytes.readUInt32LE(at);
    return bufferView(bytes.buffer, from, bytes.readUInt32LE(at + 4));
  }

  /** All of them as they are now, in any order. */
  keys(): string[] {
    const keys: string[] = [];
    this.#pages.forEach((page, number) => {
      if (page === undefined) return;
      const { bytes, end } = page;
      for (let at = 0; at < end; at = endOf(bytes, at))
        if (this.#slotOf(number, at) >= 0)
          keys.push(bytes.toString('utf8', at + HEADER_BYTES, at + HEADER_BYTES + bytes.readUInt32LE(at)));
    });
    return keys;
  }

  set(key: string | Buffer, value: Buffer): void {
    const index = this.#index;
    const slot = this.#find(key);
    if (slot >= 0) this.#release(index.place(slot));
    const place = this.#append(value);
    if (slot >= 0) index.move(slot, place);
    else index.add(this.#hash, place);
    while (this.#usedBytes * 2 < this.#pageBytes - 2 * PAGE_BYTES) this.#moveEmptiest();
  }

  delete(key: string | Buffer): void {
    const slot = this.#find(key);
    if (slot < 0) return;
    this.#release(this.#index.place(slot));
    this.#index.remove(slot);
  }

  clear(): void {
    this.#index.clear();
    this.#pages.length = this.#free.length = 0;
    this.#usedBytes = this.#pageBytes = 0;
    this.#filling = -1;
  }

  /** The slot of the key, which is the one at hand from now on; below 0: it is not there. */
  #find(key: string | Buffer): number {
    const at = this.#key;
    at.take(key);
    this.#hash = halfSipHash(at.bytes, 0, at.length, this.seed);
    return this.#index.find(this.#hash, this.#isKeyAt);
  }

  #holdsKey(place: number): boolean {
    const { bytes: key, length } = this.#key;
    const { bytes } = this.#pages[numberOf(place)]!;
    const at = place % PAGE_BYTES;
    if (bytes.readUInt32LE(at) !== length) return false;
    const from = at + HEADER_BYTES;
    for (let n = 0; n < length; n++) if (bytes[from + n] !== key[n]) return false;
    return true;
  }

  /** The slot of the entry that begins there; below 0: it was replaced or deleted. */
  #slotOf(number: number, at: number): number {
    const { bytes } = this.#pages[number]!;
    const from = at + HEADER_BYTES;
    const hash = halfSipHash(bytes, from, from + bytes.readUInt32LE(at), this.seed);
    return this.#index.find(hash, (place) => place === number * PAGE_BYTES + at);
  }

  /** An entry of the key at hand. */
  #append(value: Buffer): number {
    const { bytes: key, length } = this.#key;
    const place = this.#reserve(HEADER_BYTES + length + value.length);
    const { bytes } = this.#pages[numberOf(place)]!;
    let at = place % PAGE_BYTES;
    bytes.writeUInt32LE(length, at);
    bytes.writeUInt32LE(value.length, at + 4);
    at += HEADER_BYTES;
    for (let n = 0; n < length; n++) bytes[at++] = key[n]!;
    bytes.set(value, at);
    return place;
  }

  /** The place of an entry of so many bytes, behind all others of its page. */
  #reserve(size: number): number {
    const number = size > LARGEST_SHARED_BYTES ? this.#open(size) : this.#sharedWith(size);
    const page = this.#pages[number]!;
    const at = page.end;
    page.end += size;
    page.usedBytes += size;
    this.#usedBytes += size;
    return number * PAGE_BYTES + at;
  }

  #sharedWith(size: number): number {
    const filling = this.#pages[this.#filling];
    if (filling === undefined || filling.end + size > PAGE_BYTES) this.#filling = this.#open(PAGE_BYTES);
    return this.#filling;
  }

  #open(size: number): number {
    const number = this.#free.pop() ?? this.#pages.length;
    this.#pages[number] = { bytes: Buffer.allocUnsafeSlow(size), end: 0, usedBytes: 0 };
    this.#pageBytes += size;
    return number;
  }

  #close(number: number): void {
    this.#pageBytes -= this.#pages[number]!.bytes.length;
    this.#pages[number] = undefined;
    this.#free.push(number);
  }

  #release(place: number): void {
    const number = numberOf(place);
    const page = this.#pages[number]!;
    const at = place % PAGE_BYTES;
    const size = endOf(page.bytes, at) - at;
    page.usedBytes -= size;
    this.#usedBytes -= size;
    if (page.usedBytes === 0 && number !== this.#filling) this.#close(number);
  }

  #moveEmptiest(): void {
    const number = this.#emptiest();
    const { bytes, end } = this.#pages[number]!;
    for (let at = 0, next; at < end; at = next) {
      next = endOf(bytes, at);
      const slot = this.#slotOf(number, at);
      if (slot < 0) continue;
      const place = this.#reserve(next - at);
      this.#pages[numberOf(place)]!.bytes.set(bytes.subarray(at, next), place % PAGE_BYTES);
      this.#index.move(slot, place);
      this.#usedBytes -= next - at;
    }
    this.#close(number);
  }

  #emptiest(): number {
    let emptiest = -1;
    this.#pages.forEach((page, number) => {
      if (page === undefined || page.bytes.length !== PAGE_BYTES || number === this.#filling) return;
      if (emptiest < 0 || page.usedBytes < this.#pages[emptiest]!.usedBytes) emptiest = number;
    });
    return emptiest;
  }
}

const numberOf = (place: number): number => Math.floor(place / PAGE_BYTES);

function endOf(bytes: Buffer, at: number): number {
  return at + HEADER_BYTES + bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4);
}
