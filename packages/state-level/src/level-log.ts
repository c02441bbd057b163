import { crc32c } from '@node-rs/crc32';

const BLOCK_BYTES = 32_768;
const HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const LAST = 4;

/** LevelDB stores checksums rotated and shifted, so that a checksum over checksummed bytes is not trivial. */
export function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

export interface LogFile {
  readonly records: readonly Buffer[];
  /**
   * `cut`: what follows the records is incomplete, as a crash leaves it; LevelDB drops it. `damaged`: valid records follow a damaged one, and
   * LevelDB would go on with them.
   */
  readonly end: 'whole' | 'cut' | 'damaged';
}

/** Reads LevelDB's log format (of its write-ahead logs and manifests) and checks each part against its CRC-32C. */
export function readLog(file: Buffer): LogFile {
  const records: Buffer[] = [];
  let parts: Buffer[] = [];
  let end: LogFile['end'] = 'whole';
  for (let at = 0; at < file.length;) {
    const left = BLOCK_BYTES - (at % BLOCK_BYTES);
    const header = left < HEADER_BYTES || at + HEADER_BYTES > file.length ? undefined : readHeader(file, at);
    // The rest of a block that has no room for a header, or that was never written.
    if (header === undefined || (header.type === 0 && header.length === 0)) {
      if (left >= HEADER_BYTES && header === undefined) end = 'cut';
      at += left;
      continue;
    }
    const next = at + HEADER_BYTES + header.length;
    const fits = HEADER_BYTES + header.length <= left && next <= file.length;
    if (!fits || masked(crc32c(file.subarray(at + 6, next))) !== header.crc) {
      end = 'cut';
      // LevelDB drops the rest of the block, and goes on behind it.
      at += left;
      continue;
    }
    if (end === 'cut') return { records, end: 'damaged' };
    if (header.type === FULL || header.type === FIRST) parts = [];
    parts.push(file.subarray(at + HEADER_BYTES, next));
    if (header.type === FULL || header.type === LAST) records.push(Buffer.concat(parts));
    at = next;
  }
  return { records, end };
}

function readHeader(file: Buffer, at: number): { crc: number; length: number; type: number } {
  return { crc: file.readUInt32LE(at), length: file.readUInt16LE(at + 4), type: file.readUInt8(at + 6) };
}
