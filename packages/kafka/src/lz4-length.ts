const MAGIC = 0x184d2204;
const UNCOMPRESSED = 0x8000_0000;
/** A match grows by at most that much per byte that tells its length; literals and headers by less. */
const MAX_RATIO = 255;

/** Whether an LZ4 frame unpacks into more than `maxBytes`, by its lengths alone. Throws a RangeError for what is no frame, or is cut off. */
export function lz4Exceeds(frame: Buffer, maxBytes: number): boolean {
  // Counted only where it could matter: no batch of ordinary size does.
  if (frame.length * MAX_RATIO <= maxBytes) return false;
  if (frame.readUInt32LE(0) !== MAGIC) throw new RangeError('an lz4 frame does not begin with its magic number');
  const flags = frame.readUInt8(4);
  const contentSize = (flags & 8) > 0 ? 8 : 0;
  const dictionary = (flags & 1) > 0 ? 4 : 0;
  const checksum = (flags & 16) > 0 ? 4 : 0;
  let bytes = 0;
  for (let at = 7 + contentSize + dictionary; bytes <= maxBytes;) {
    const header = frame.readUInt32LE(at);
    if (header === 0) return false;
    const compressed = header < UNCOMPRESSED;
    const length = compressed ? header : header - UNCOMPRESSED;
    at += 4;
    if (at + length > frame.length) throw new RangeError('an lz4 block ends past its frame');
    bytes += compressed ? blockBytes(frame, at, at + length, maxBytes) : length;
    at += length + checksum;
  }
  return true;
}

/** What the sequences of a block unpack into: exact up to `maxBytes`, anything above them beyond that. */
function blockBytes(frame: Buffer, from: number, end: number, maxBytes: number): number {
  let bytes = 0;
  let at = from;
  const extended = (nibble: number): number => {
    let length = nibble;
    if (nibble < 15) return length;
    let byte: number;
    do {
      byte = at < end ? frame[at++]! : 0;
      length += byte;
    } while (byte === 255);
    return length;
  };
  while (at < end && bytes <= maxBytes) {
    const token = frame[at++]!;
    const literals = extended(token >>> 4);
    at += literals;
    bytes += literals;
    // The last sequence is literals only.
    if (at >= end) break;
    at += 2; // how far back
    bytes += 4 + extended(token & 15);
  }
  return bytes;
}
