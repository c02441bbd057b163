import { bufferView } from '@headwater/core';

/** Writes Kafka's primitive types into a growing buffer. Names follow the protocol guide; `compact…` is the flexible form (KIP-482). */
export class ByteWriter {
  #bytes: Buffer;
  #at = 0;

  /** Writes from the start of `buffer`, and into a larger one of its own when that is full. */
  constructor(buffer: Buffer = Buffer.allocUnsafe(256)) {
    this.#bytes = buffer;
  }

  int8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes.writeInt8(value, at);
    return this;
  }

  bool(value: boolean): this {
    return this.int8(value ? 1 : 0);
  }

  int16(value: number): this {
    const at = this.#reserve(2);
    this.#bytes.writeInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#reserve(4);
    this.#bytes.writeInt32BE(value, at);
    return this;
  }

  int64(value: number | bigint): this {
    const at = this.#reserve(8);
    this.#bytes.writeBigInt64BE(BigInt(value), at);
    return this;
  }

  uvarint(value: number): this {
    let rest = value;
    while (rest > 127) {
      this.#byte((rest & 127) | 128);
      rest >>>= 7;
    }
    this.#byte(rest);
    return this;
  }

  compactString(text: string | null): this {
    if (text === null) return this.uvarint(0);
    const length = Buffer.byteLength(text);
    this.uvarint(length + 1);
    const at = this.#reserve(length);
    this.#bytes.write(text, at);
    return this;
  }

  string(text: string): this {
    const length = Buffer.byteLength(text);
    this.int16(length);
    const at = this.#reserve(length);
    this.#bytes.write(text, at);
    return this;
  }

  raw(bytes: Buffer): this {
    const at = this.#reserve(bytes.length);
    bytes.copy(this.#bytes, at);
    return this;
  }

  compactBytes(bytes: Buffer): this {
    return this.uvarint(bytes.length + 1).raw(bytes);
  }

  bytes(bytes: Buffer): this {
    return this.int32(bytes.length).raw(bytes);
  }

  compactArray<T>(items: readonly T[], write: (item: T) => void): this {
    this.uvarint(items.length + 1);
    for (const item of items) write(item);
    return this;
  }

  /** In the place of a `compactArray`. */
  nullArray(): this {
    return this.uvarint(0);
  }

  array<T>(items: readonly T[], write: (item: T) => void): this {
    this.int32(items.length);
    for (const item of items) write(item);
    return this;
  }

  /** The empty tag section that ends every flexible structure. */
  tags(): this {
    return this.uvarint(0);
  }

  done(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  /** What has been written so far, as a frame: its first four bytes become the size of the rest. */
  framed(): Buffer {
    this.#bytes.writeInt32BE(this.#at - 4, 0);
    return this.done();
  }

  #byte(value: number): void {
    const at = this.#reserve(1); // may replace the buffer: before it is named
    this.#bytes[at] = value;
  }

  #reserve(size: number): number {
    const at = this.#at;
    if (at + size > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, at + size));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#at = at + size;
    return at;
  }
}

/** Reads Kafka's primitive types. Offsets become numbers, exact up to 2^53. */
export class ByteReader {
  readonly source: Buffer;
  at: number;
  readonly #bytes: ArrayBufferLike;
  readonly #origin: number;

  constructor(source: Buffer, at = 0) {
    this.source = source;
    this.at = at;
    this.#bytes = source.buffer;
    this.#origin = source.byteOffset;
  }

  int8(): number {
    return this.source.readInt8(this.at++);
  }

  bool(): boolean {
    return this.int8() !== 0;
  }

  int16(): number {
    const value = this.source.readInt16BE(this.at);
    this.at += 2;
    return value;
  }

  int32(): number {
    const value = this.source.readInt32BE(this.at);
    this.at += 4;
    return value;
  }

  bigint64(): bigint {
    const value = this.source.readBigInt64BE(this.at);
    this.at += 8;
    return value;
  }

  int64(): number {
    const value = readInt64(this.source, this.at);
    this.at += 8;
    return value;
  }

  uvarint(): number {
    let value = 0;
    let shift = 0;
    let byte: number;
    do {
      byte = this.source.readUInt8(this.at++);
      value |= (byte & 127) << shift;
      shift += 7;
    } while (byte & 128);
    return value >>> 0;
  }

  /** As Kafka writes it: base64url. */
  uuid(): string {
    const from = this.at;
    this.at += 16;
    return this.source.toString('base64url', from, this.at);
  }

  compactString(): string | null {
    const length = this.uvarint() - 1;
    return length < 0 ? null : this.#text(length);
  }

  string(): string {
    return this.#text(this.int16());
  }

  compactBytes(): Buffer | null {
    const length = this.uvarint() - 1;
    return length < 0 ? null : this.view(length);
  }

  /** The next bytes, where they are. Throws RangeError past the end. */
  view(length: number): Buffer {
    const from = this.at;
    if (length < 0 || from + length > this.source.length) throw new RangeError('bytes past their end');
    this.at += length;
    return bufferView(this.#bytes, this.#origin + from, length);
  }

  compactArray<T>(read: () => T): T[] {
    const items: T[] = [];
    for (let left = this.uvarint() - 1; left > 0; left--) items.push(read());
    return items;
  }

  array<T>(read: () => T): T[] {
    const items: T[] = [];
    for (let left = this.int32(); left > 0; left--) items.push(read());
    return items;
  }

  /** Skips the tag section; `known` sees each tag with the reader at its value. */
  tags(known?: (tag: number) => void): void {
    for (let left = this.uvarint(); left > 0; left--) {
      const tag = this.uvarint();
      const size = this.uvarint();
      const end = this.at + size;
      known?.(tag);
      this.at = end;
    }
  }

  #text(length: number): string {
    const from = this.at;
    this.at += length;
    return this.source.toString('utf8', from, this.at);
  }
}

export function readInt64(source: Buffer, at: number): number {
  return source.readInt32BE(at) * 0x1_0000_0000 + source.readUInt32BE(at + 4);
}
