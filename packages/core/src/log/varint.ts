/** Writes the zigzag varint of a safe integer and returns the position after it. */
export function putVarint(target: Uint8Array, at: number, value: number): number {
  if (value >= 0 && value < 0x4000_0000) {
    let rest = value << 1;
    while (rest > 127) {
      target[at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    target[at++] = rest;
    return at;
  }
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  while (zigzag > 127) {
    target[at++] = (zigzag % 128) | 128;
    zigzag = Math.floor(zigzag / 128);
  }
  target[at++] = zigzag;
  return at;
}

/** How many bytes `putVarint` writes for a safe integer. */
export function varintSize(value: number): number {
  if (value >= 0 && value < 64) return 1;
  if (value >= 0 && value < 8_192) return 2;
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  let size = 1;
  while (zigzag > 127) {
    zigzag = Math.floor(zigzag / 128);
    size++;
  }
  return size;
}
