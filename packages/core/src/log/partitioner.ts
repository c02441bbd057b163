/** Kafka's default partition of a key: `toPositive(murmur2(key)) % partitions`, equal to Java's and librdkafka's `murmur2_random`. */
export function partitionOf(key: Buffer, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}

const SEED = 0x9747b28c;
const M = 0x5bd1e995;

/** murmur2 as org.apache.kafka.common.utils.Utils computes it, over `data` from `from` to `to`, as a signed 32-bit number. */
export function murmur2(data: Uint8Array, from = 0, to = data.length): number {
  const length = to - from;
  let h = SEED ^ length;
  let at = from;
  for (const end = from + (length & ~3); at < end; at += 4) {
    let k = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
    k = Math.imul(k, M);
    k ^= k >>> 24;
    k = Math.imul(k, M);
    h = Math.imul(h, M) ^ k;
  }
  switch (length & 3) {
    case 3:
      h ^= data[at + 2]! << 16;
    // falls through
    case 2:
      h ^= data[at + 1]! << 8;
    // falls through
    case 1:
      h = Math.imul(h ^ data[at]!, M);
  }
  h ^= h >>> 13;
  h = Math.imul(h, M);
  h ^= h >>> 15;
  return h | 0;
}
