const FEWEST_SLOTS = 16;

/**
 * Finds places by the hashes of the keys that are kept there: a hash table of numbers with linear probing that closes the gap when a key is removed
 * (Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R). An eighth to half of it is in use. A slot stays the key's until another key is
 * added or removed.
 */
export class PlaceIndex {
  size = 0;
  #hashes = new Int32Array(FEWEST_SLOTS);
  /** The place plus 1; 0: the slot is free. */
  #places = new Float64Array(FEWEST_SLOTS);

  /** What it takes. */
  get bytes(): number {
    return this.#hashes.byteLength + this.#places.byteLength;
  }

  /** The slot of the key with this hash that `isAt` knows the place of; below 0: there is none. */
  find(hash: number, isAt: (place: number) => boolean): number {
    const places = this.#places;
    const mask = places.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const place = places[slot]!;
      if (place === 0) return -1;
      if (this.#hashes[slot] === hash && isAt(place - 1)) return slot;
    }
  }

  place(slot: number): number {
    return this.#places[slot]! - 1;
  }

  /** From now on the slot leads there. */
  move(slot: number, place: number): void {
    this.#places[slot] = place + 1;
  }

  /** Of a key that is not in it. */
  add(hash: number, place: number): void {
    this.size += 1;
    if (this.size * 2 > this.#places.length) this.#resize(this.#places.length * 2);
    this.#put(hash, place + 1);
  }

  remove(slot: number): void {
    const [hashes, places] = [this.#hashes, this.#places];
    const mask = places.length - 1;
    let gap = slot;
    for (let at = (slot + 1) & mask; places[at] !== 0; at = (at + 1) & mask) {
      // What is looked for from behind the gap stays where it is.
      if (((at - hashes[at]!) & mask) < ((at - gap) & mask)) continue;
      hashes[gap] = hashes[at]!;
      places[gap] = places[at]!;
      gap = at;
    }
    places[gap] = 0;
    this.size -= 1;
    if (this.size * 8 < places.length && places.length > FEWEST_SLOTS) this.#resize(places.length / 2);
  }

  clear(): void {
    this.size = 0;
    this.#hashes = new Int32Array(FEWEST_SLOTS);
    this.#places = new Float64Array(FEWEST_SLOTS);
  }

  #resize(slots: number): void {
    const [hashes, places] = [this.#hashes, this.#places];
    this.#hashes = new Int32Array(slots);
    this.#places = new Float64Array(slots);
    for (let slot = 0; slot < places.length; slot++) if (places[slot] !== 0) this.#put(hashes[slot]!, places[slot]!);
  }

  #put(hash: number, entry: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let slot = hash & mask;
    while (places[slot] !== 0) slot = (slot + 1) & mask;
    this.#hashes[slot] = hash;
    places[slot] = entry;
  }
}
