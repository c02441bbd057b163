const FRAME = 0xfd2fb528;
const SKIPPABLE = 0x184d2a5;
/** Up to here zstd itself reads what it is given, unless told otherwise. */
const USUAL_WINDOW_BYTES = 1 << 27;

/**
 * Whether a frame of Zstandard says that it needs more than `maxBytes`: as its content, or as the window behind it, which is allocated before
 * the first byte is unpacked. A window may be larger than what is in it: usual ones always pass.
 */
export function zstdClaimsAbove(packed: Buffer, maxBytes: number): boolean {
  const maxWindow = Math.max(maxBytes, USUAL_WINDOW_BYTES);
  let at = 0;
  while (at + 9 <= packed.length) {
    const magic = packed.readUInt32LE(at);
    if (magic >>> 4 === SKIPPABLE) {
      at += 8 + packed.readUInt32LE(at + 4);
      continue;
    }
    // What follows is nothing a decoder would take.
    if (magic !== FRAME) return false;
    const { window, content, blocks, checksum } = frameHeader(packed, at + 4);
    if (window > maxWindow || content > maxBytes) return true;
    at = afterBlocks(packed, blocks) + checksum;
  }
  return false;
}

function frameHeader(packed: Buffer, at: number) {
  const descriptor = packed[at]!;
  const single = (descriptor & 32) > 0;
  const contentField = descriptor >>> 6 > 0 ? 1 << (descriptor >>> 6) : single ? 1 : 0;
  const dictionaryField = [0, 1, 2, 4][descriptor & 3]!;
  const windowByte = packed[at + 1]!;
  const unit = 2 ** (10 + (windowByte >>> 3));
  const contentAt = at + (single ? 1 : 2) + dictionaryField;
  const content = littleEndian(packed, contentAt, contentField) + (contentField === 2 ? 256 : 0);
  const window = single ? 0 : unit + (unit / 8) * (windowByte & 7);
  return { window, content, blocks: contentAt + contentField, checksum: (descriptor & 4) > 0 ? 4 : 0 };
}

function littleEndian(packed: Buffer, at: number, bytes: number): number {
  let value = 0;
  for (let n = bytes - 1; n >= 0; n--) value = value * 256 + (packed[at + n] ?? 0);
  return value;
}

/** Where the last block of a frame ends. */
function afterBlocks(packed: Buffer, from: number): number {
  let at = from;
  for (;;) {
    const header = littleEndian(packed, at, 3);
    const runLength = ((header >>> 1) & 3) === 1;
    at += 3 + (runLength ? 1 : header >>> 3);
    if ((header & 1) > 0 || at >= packed.length) return at;
  }
}
