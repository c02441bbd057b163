import { crc32c } from '@node-rs/crc32';
import { LevelBytes } from './level-bytes.js';
import { masked } from './level-log.js';

const FOOTER_BYTES = 48;
const MAGIC = 0xdb4775248b80fb57n;

interface Handle {
  readonly at: number;
  readonly size: number;
}

/** Whether every block of an uncompressed table file has the bytes it was written with. */
export function isTableIntact(file: Buffer): boolean {
  try {
    if (file.length < FOOTER_BYTES || file.readBigUInt64LE(file.length - 8) !== MAGIC) return false;
    const footer = new LevelBytes(file, file.length - FOOTER_BYTES);
    const roots = [readHandle(footer), readHandle(footer)];
    return roots.every(
      (root) => isBlockIntact(file, root) && handlesIn(file, root).every((block) => isBlockIntact(file, block)),
    );
  } catch (error) {
    if (error instanceof Error && error.name === 'RangeError') return false;
    throw error;
  }
}

/** Behind each block stand one byte for its compression, and four for the CRC-32C of both. */
function isBlockIntact(file: Buffer, { at, size }: Handle): boolean {
  const end = at + size + 1;
  if (end + 4 > file.length) return false;
  return masked(crc32c(file.subarray(at, end))) === file.readUInt32LE(end);
}

/** The values of an index block are the handles of other blocks. */
function handlesIn(file: Buffer, { at, size }: Handle): Handle[] {
  const block = file.subarray(at, at + size);
  const restarts = block.readUInt32LE(size - 4);
  const end = size - 4 - 4 * restarts;
  const handles: Handle[] = [];
  const bytes = new LevelBytes(block);
  while (bytes.at < end) {
    bytes.varint();
    const keyRest = bytes.varint();
    const valueSize = bytes.varint();
    bytes.skip(keyRest);
    const valueAt = bytes.at;
    handles.push(readHandle(bytes));
    bytes.at = valueAt;
    bytes.skip(valueSize);
  }
  return handles;
}

function readHandle(bytes: LevelBytes): Handle {
  const at = bytes.varint();
  const size = bytes.varint();
  return { at, size };
}
