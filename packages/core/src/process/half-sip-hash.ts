/**
 * HalfSipHash with 1 round per word and 3 at the end, as Linux has it for hash tables: whoever does not know the seed cannot choose keys that collide
 * (Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012; https://docs.kernel.org/security/siphash.html). A signed 32-bit number.
 * The rounds are those of the reference's test vectors when they are 2 and 4.
 */
export function halfSipHash(
  bytes: Uint8Array,
  from: number,
  to: number,
  [k0, k1]: readonly [number, number],
  rounds = 1,
  lastRounds = 3,
): number {
  let v0 = k0 | 0;
  let v1 = k1 | 0;
  let v2 = 0x6c796765 ^ k0;
  let v3 = 0x74656462 ^ k1;
  const length = to - from;
  const words = length >>> 2;
  let at = from;
  // The last word has the bytes that are left, and the length; what comes behind it is the end.
  for (let word = 0; word <= words + 1; word++, at += 4) {
    let m = 0;
    if (word < words) m = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    else if (word > words) v2 ^= 0xff;
    else {
      m = length << 24;
      for (let n = 0; n < (length & 3); n++) m |= bytes[at + n]! << (8 * n);
    }
    v3 ^= m;
    for (let round = word > words ? lastRounds : rounds; round > 0; round--) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    v0 ^= m;
  }
  return v1 ^ v3;
}
