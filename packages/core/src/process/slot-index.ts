import { randomInt } from 'node:crypto';

const FEWEST_SLOTS = 16;
/** Drawn anew by every process, so that nobody can choose keys that all fall into one place. */
const MULTIPLIER = randomInt(2 ** 31) * 2 + 1;
const SEED = randomInt(2 ** 32);

/** A key as bytes, with their hash. One object serves for many keys, one after the other. */
export class KeyBytes {
  bytes: Uint8Array = Buffer.allocUnsafeSlow(256);
  length = 0;
  hash = 0;
  #own = this.bytes as Buffer;

  /** A text stands for its UTF-8 bytes; bytes are looked at, not copied. */
  take(key: string | Uint8Array): this {
    if (typeof key === 'string') this.#encode(key);
    else {
      this.bytes = key;
      this.length = key.length;
    }
    this.hash = hashOf(this.bytes, 0, this.length);
    return this;
  }

  #encode(key: string): void {
    const { length } = key;
    if (length * 3 > this.#own.length) this.#own = Buffer.allocUnsafeSlow(length * 6);
    const own = this.#own;
    this.bytes = own;
    this.length = length;
    for (let n = 0; n < length; n++) {
      const unit = key.charCodeAt(n);
      // A call into the encoder costs more than most keys are long.
      if (unit > 0x7f) return void (this.length = own.write(key, 'utf8'));
      own[n] = unit;
    }
  }
}

/**
 * Finds places by the keys that are kept there: a hash table of numbers with linear probing, at most half full, that closes the gap when a
 * key is removed (Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R). A slot stays the key's until something is removed, or added.
 */
export class SlotIndex {
  size = 0;
  #hashes = new Int32Array(FEWEST_SLOTS);
  /** The place plus 1; 0: the slot is free. */
  #places = new Float64Array(FEWEST_SLOTS);

  /** `isAt` tells whether the key is the one that is kept at a place. */
  constructor(private readonly isAt: (place: number, key: KeyBytes) => boolean) {}

  /** The slot of the key; or, below 0, -1 minus the free one it would take. */
  find(key: KeyBytes): number {
    const places = this.#places;
    const mask = places.length - 1;
    for (let slot = key.hash & mask; ; slot = (slot + 1) & mask) {
      const place = places[slot]!;
      if (place === 0) return -1 - slot;
      if (this.#hashes[slot] === key.hash && this.isAt(place - 1, key)) return slot;
    }
  }

  /** The slot that leads to this place, where the key of `bytes` from `from` to `to` is or was kept; below 0: none does. */
  findPlace(place: number, bytes: Uint8Array, from: number, to: number): number {
    const places = this.#places;
    const mask = places.length - 1;
    for (let slot = hashOf(bytes, from, to) & mask; places[slot] !== 0; slot = (slot + 1) & mask)
      if (places[slot] === place + 1) return slot;
    return -1;
  }

  place(slot: number): number {
    return this.#places[slot]! - 1;
  }

  /** From now on the slot leads there. */
  move(slot: number, place: number): void {
    this.#places[slot] = place + 1;
  }

  /** Takes the free slot that `find` named. */
  add(found: number, key: KeyBytes, place: number): void {
    const slot = -1 - found;
    this.#hashes[slot] = key.hash;
    this.#places[slot] = place + 1;
    this.size += 1;
    if (this.size * 2 > this.#places.length) this.#grow();
  }

  remove(slot: number): void {
    const [hashes, places] = [this.#hashes, this.#places];
    const mask = places.length - 1;
    let gap = slot;
    for (let at = (slot + 1) & mask; places[at] !== 0; at = (at + 1) & mask) {
      // What is probed for from behind the gap stays where it is.
      if (((at - hashes[at]!) & mask) < ((at - gap) & mask)) continue;
      hashes[gap] = hashes[at]!;
      places[gap] = places[at]!;
      gap = at;
    }
    places[gap] = 0;
    this.size -= 1;
  }

  clear(): void {
    this.size = 0;
    this.#hashes = new Int32Array(FEWEST_SLOTS);
    this.#places = new Float64Array(FEWEST_SLOTS);
  }

  #grow(): void {
    const [hashes, places] = [this.#hashes, this.#places];
    const mask = places.length * 2 - 1;
    this.#hashes = new Int32Array(mask + 1);
    this.#places = new Float64Array(mask + 1);
    for (let from = 0; from < places.length; from++) {
      if (places[from] === 0) continue;
      let slot = hashes[from]! & mask;
      while (this.#places[slot] !== 0) slot = (slot + 1) & mask;
      this.#hashes[slot] = hashes[from]!;
      this.#places[slot] = places[from]!;
    }
  }
}

/** Four bytes at a time; the end as MurmurHash3's, so that every bit counts for the low ones. */
function hashOf(bytes: Uint8Array, from: number, to: number): number {
  let hash = SEED ^ (to - from);
  let at = from;
  for (; at + 4 <= to; at += 4) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    hash = Math.imul(hash ^ word, MULTIPLIER);
    hash ^= hash >>> 15;
  }
  for (; at < to; at++) hash = Math.imul(hash ^ bytes[at]!, MULTIPLIER);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
