const PAGE_BYTES = 1 << 18;
/** Before each value: its length. */
const HEADER_BYTES = 4;
/** A larger value gets a page of its own, so that no page is left half empty. */
const LARGEST_SHARED_BYTES = PAGE_BYTES / 4;

interface Page {
  readonly bytes: Buffer;
  /** The keys of the entries, in their order, those that were replaced since included. */
  readonly keys: string[];
  usedBytes: number;
}

/**
 * A map from text to bytes that keeps its values in pages: a Buffer per value costs more than most values, and a view of the buffer a value
 * came in keeps all of that alive. Takes at most about twice the bytes of what it holds, and two pages. A value it gave out never changes,
 * whatever is set afterwards.
 *
 * What is replaced stays where it is until less than half of the pages is in use; then the emptiest page is moved to the end (the
 * cleaning of Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992).
 */
export class PagedValues {
  /** Where each value's entry begins: the number of its page times PAGE_BYTES, and the place in the page. */
  readonly #places = new Map<string, number>();
  readonly #pages: (Page | undefined)[] = [];
  readonly #free: number[] = [];
  #usedBytes = 0;
  #pageBytes = 0;
  /** The shared page that is being filled, and how far. */
  #filling = -1;
  #end = PAGE_BYTES;

  get size(): number {
    return this.#places.size;
  }

  /** What the pages take, in use or not. */
  get bytes(): number {
    return this.#pageBytes;
  }

  get(key: string): Buffer | undefined {
    const place = this.#places.get(key);
    if (place === undefined) return undefined;
    const { bytes } = this.#pages[numberOf(place)]!;
    const from = (place % PAGE_BYTES) + HEADER_BYTES;
    return bytes.subarray(from, from + bytes.readUInt32LE(from - HEADER_BYTES));
  }

  keys(): IterableIterator<string> {
    return this.#places.keys();
  }

  set(key: string, value: Buffer): void {
    this.#release(this.#places.get(key));
    this.#places.set(key, this.#put(key, value));
    while (this.#usedBytes * 2 < this.#pageBytes - 2 * PAGE_BYTES) this.#moveEmptiest();
  }

  delete(key: string): void {
    this.#release(this.#places.get(key));
    this.#places.delete(key);
  }

  clear(): void {
    this.#places.clear();
    this.#pages.length = this.#free.length = 0;
    this.#usedBytes = this.#pageBytes = 0;
    this.#filling = -1;
    this.#end = PAGE_BYTES;
  }

  #put(key: string, value: Buffer): number {
    const bytes = HEADER_BYTES + value.length;
    const number = bytes > LARGEST_SHARED_BYTES ? this.#open(bytes) : this.#sharedWith(bytes);
    const page = this.#pages[number]!;
    const at = number === this.#filling ? this.#end : 0;
    if (number === this.#filling) this.#end += bytes;
    page.bytes.writeUInt32LE(value.length, at);
    page.bytes.set(value, at + HEADER_BYTES);
    page.keys.push(key);
    page.usedBytes += bytes;
    this.#usedBytes += bytes;
    return number * PAGE_BYTES + at;
  }

  #sharedWith(bytes: number): number {
    if (this.#end + bytes > PAGE_BYTES) {
      this.#filling = this.#open(PAGE_BYTES);
      this.#end = 0;
    }
    return this.#filling;
  }

  #open(size: number): number {
    const number = this.#free.pop() ?? this.#pages.length;
    this.#pages[number] = { bytes: Buffer.allocUnsafeSlow(size), keys: [], usedBytes: 0 };
    this.#pageBytes += size;
    return number;
  }

  #close(number: number): void {
    this.#pageBytes -= this.#pages[number]!.bytes.length;
    this.#pages[number] = undefined;
    this.#free.push(number);
  }

  #release(place: number | undefined): void {
    if (place === undefined) return;
    const number = numberOf(place);
    const page = this.#pages[number]!;
    const bytes = HEADER_BYTES + page.bytes.readUInt32LE(place % PAGE_BYTES);
    page.usedBytes -= bytes;
    this.#usedBytes -= bytes;
    if (page.usedBytes === 0 && number !== this.#filling) this.#close(number);
  }

  #moveEmptiest(): void {
    const number = this.#emptiest();
    const { bytes, keys } = this.#pages[number]!;
    let at = 0;
    for (const key of keys) {
      const end = at + HEADER_BYTES + bytes.readUInt32LE(at);
      if (this.#places.get(key) === number * PAGE_BYTES + at) {
        this.#places.set(key, this.#put(key, bytes.subarray(at + HEADER_BYTES, end)));
        this.#usedBytes -= end - at;
      }
      at = end;
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
