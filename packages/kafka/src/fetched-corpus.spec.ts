import { crc32c } from '@node-rs/crc32';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { BATCH_HEADER_BYTES, type Header, type LogRecord, type OutRecord } from '@headwater/core';
import { decodeFetched, recordBatch } from './batch.testing.js';
import { packer, type Compression } from './codecs.js';
import { endOfBatches } from './fetched.js';
import { KafkaError } from './kafka.errors.js';

const SEED = Number(process.env['HEADWATER_SEED'] ?? 107);
const MUTATIONS = 100_000;

/** Odd records, all legal. */
const ODD: readonly OutRecord[] = [
  { topic: 't', key: null, value: Buffer.from('no headers') },
  { topic: 't', key: Buffer.alloc(0), value: null, headers: [['', Buffer.alloc(0)]] },
  { topic: 't', key: Buffer.from('k'), value: Buffer.from('null header value'), headers: [['n', null]] },
  {
    topic: 't',
    key: Buffer.from('k'),
    value: Buffer.from('twice'),
    headers: [
      ['same', null],
      ['same', null],
    ],
  },
  { topic: 't', key: Buffer.from('k'), value: Buffer.from('before 1970'), timestamp: -1_234_567_890_123 },
  { topic: 't', key: Buffer.from('k'), value: Buffer.from('far'), timestamp: 253_402_300_799_999 },
  { topic: 't', key: Buffer.from('ключ 🔑'), value: Buffer.alloc(300, 7), headers: [['имя 🏷', Buffer.from('ü')]] },
];

describe('the decoder over a corpus', () => {
  /** A log of small batches, plain and of every codec, without gaps. */
  let log: Buffer;
  let whole: readonly LogRecord[];
  let end = 0;
  beforeAll(async () => {
    const codecs: (Compression | undefined)[] = [undefined, 'gzip', 'snappy', 'lz4', 'zstd', undefined];
    const batches: Buffer[] = [];
    for (const compression of codecs) {
      const pack = compression && (await packer(compression));
      batches.push(at(end, recordBatch(ODD, { producerId: 1n, epoch: 0, baseSequence: 0 }, 5, pack)));
      end += ODD.length;
    }
    log = Buffer.concat(batches);
    whole = decode(log).records;
  });

  it('S107 reads empty, null and repeated headers, null and empty keys, and times before 1970', () => {
    expect(whole).toHaveLength(end);
    for (const [index, { offset, key, value, headers, timestamp }] of whole.entries()) {
      const wanted = ODD[index % ODD.length]!;
      expect({ offset, key, value, headers, timestamp }).toEqual({
        offset: index,
        key: wanted.key,
        value: wanted.value,
        headers: wanted.headers ?? [],
        timestamp: wanted.timestamp ?? 5,
      });
    }
  });

  it('S107 reads a header of a megabyte, and ten thousand of them', () => {
    const headers = Array.from({ length: 10_000 }, (_, n): [string, Buffer] => [`h${n}`, Buffer.from(`${n}`)]);
    headers.push(['huge'.repeat(1_000), Buffer.alloc(1 << 20, 1)]);
    const bytes = recordBatch([{ ...ODD[0]!, headers }], { producerId: 1n, epoch: 0, baseSequence: 0 }, 5);
    expect(decode(bytes).records[0]!.headers.map(latin)).toEqual(headers.map(latin));
  });

  it.each([0, 1, 3, 255])('S107 refuses record format %i by name, however short its batch is', (magic) => {
    for (const size of [17, 34, BATCH_HEADER_BYTES - 1, BATCH_HEADER_BYTES, 200]) {
      const bytes = Buffer.alloc(size);
      bytes.writeInt32BE(size - 12, 8);
      bytes[16] = magic;
      expect(() => decodeFetched({ topic: 't', partition: 3, from: 42, bytes, aborted: [] })).toThrow(
        expect.objectContaining({ code: 'LOG_CORRUPT', facts: { topic: 't', partition: 3, offset: 42, magic } }),
      );
    }
  });

  it('S107 takes a first batch that is cut off for corrupt, a later one for unfinished', () => {
    const first = log.readInt32BE(8) + 12;
    for (let length = 1; length < log.length; length += 23) {
      const cut = log.subarray(0, length);
      if (length >= first) expect(decode(cut).records).toEqual(whole.slice(0, decode(cut).nextOffset));
      else if (length > 16) expect(() => decode(cut)).toThrow(expect.objectContaining({ code: 'LOG_CORRUPT' }));
      else expect(decode(cut)).toMatchObject({ records: [], nextOffset: 0 });
    }
  });

  /** The bytes of one record after its size: attributes, time, offset, key, value, headers, all varints of one byte. */
  it.each([
    ['a size past the batch', [40, 0, 0, 0, 1, 1, 0]],
    ['a key past its record', [12, 0, 0, 0, 80, 1, 0]],
    ['a key of length -2', [12, 0, 0, 0, 3, 1, 0]],
    ['bytes after the last header', [14, 0, 0, 0, 1, 1, 0, 0]],
    ['a header without a name', [16, 0, 0, 0, 1, 1, 2, 1, 1]],
    ['a negative number of headers', [12, 0, 0, 0, 1, 1, 1]],
    ['an offset outside of its batch', [12, 0, 0, 2, 1, 1, 0]],
    ['a varint without an end', [24, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0]],
  ])('S107 takes %s for corrupt, though the CRC fits', (_, record) => {
    const head = recordBatch([ODD[0]!], { producerId: 1n, epoch: 0, baseSequence: 0 }, 5).subarray(0, 61);
    const bytes = Buffer.concat([head, Buffer.from(record)]);
    bytes.writeInt32BE(bytes.length - 12, 8);
    bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17);
    expect(() => decode(bytes)).toThrow(expect.objectContaining({ code: 'LOG_CORRUPT' }));
  });

  it(`S107 delivers the true records or an error over ${MUTATIONS} mutations (seed ${SEED})`, () => {
    const random = seededRandom(SEED).below;
    const seen = { refused: 0, short: 0, whole: 0 };
    for (let n = 0; n < MUTATIONS; n++) {
      const bytes = mutated(log, random);
      const foreseen = endOfBatches(bytes, 0, end);
      let result: ReturnType<typeof decode>;
      try {
        result = decode(bytes);
      } catch (error) {
        expectCorrupt(error, n);
        seen.refused++;
        continue;
      }
      // Everything up to where it will read on, as it was written: nothing skipped, nothing changed.
      const { records, nextOffset } = result;
      if (records.length !== nextOffset || !records.every((record, index) => same(record, whole[index]!))) {
        throw new Error(`mutation ${n} of seed ${SEED} was delivered`);
      }
      if (foreseen !== nextOffset) throw new Error(`mutation ${n} of seed ${SEED}: reads on elsewhere than foreseen`);
      seen[nextOffset === end ? 'whole' : 'short']++;
    }
    expect(seen.refused).toBeGreaterThan(MUTATIONS / 2);
  });

  it(`S107 never fails otherwise than with LOG_CORRUPT or LOG_CODEC_MISSING when the CRC fits changed bytes (seed ${SEED})`, () => {
    const random = seededRandom(SEED).below;
    const seen = { refused: 0, read: 0 };
    for (let n = 0; n < MUTATIONS / 5; n++) {
      const bytes = Buffer.from(batchOf(log, random(6)));
      for (let flips = 1 + random(4); flips > 0; flips--) bytes[21 + random(bytes.length - 21)]! ^= 1 << random(8);
      bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17);
      try {
        const { records, nextOffset } = decodeFetched({ topic: 't', partition: 0, from: 0, bytes, aborted: [] });
        seen.read++;
        const inOrder = records.every(({ offset }, index) => offset > (records[index - 1]?.offset ?? -1));
        if (!inOrder || (records.at(-1)?.offset ?? -1) >= nextOffset) throw new Error('out of order');
      } catch (error) {
        expectCorrupt(error, n);
        seen.refused++;
      }
    }
    expect(seen.refused).toBeGreaterThan(0);
    expect(seen.read).toBeGreaterThan(0);
  });

  function decode(bytes: Buffer): ReturnType<typeof decodeFetched> {
    return decodeFetched({ topic: 't', partition: 0, from: 0, before: end || Infinity, bytes, aborted: [] });
  }
});

/** Jest compares long texts much faster than long buffers. */
function latin([name, value]: Header): [string, string | undefined] {
  return [name, value?.toString('latin1')];
}

function expectCorrupt(error: unknown, n: number): void {
  const code = error instanceof KafkaError ? error.code : undefined;
  if (code === 'LOG_CORRUPT' || code === 'LOG_CODEC_MISSING') return;
  throw new Error(`mutation ${n} of seed ${SEED} failed in its own way`, { cause: error });
}

/** Bits flipped, bytes overwritten, the end cut off, or a piece moved. */
function mutated(log: Buffer, random: (below: number) => number): Buffer {
  const bytes = Buffer.from(log);
  const kind = random(8);
  if (kind === 0) return bytes.subarray(0, random(bytes.length));
  if (kind === 1) bytes.copyWithin(random(bytes.length), random(bytes.length), random(bytes.length));
  else if (kind === 2) bytes.fill(random(256), random(bytes.length), random(bytes.length));
  // The fields before the CRC are the ones that it does not guard.
  else if (kind === 3) batchOf(bytes, random(6))[random(21)]! ^= 1 << random(8);
  else for (let flips = 1 + random(8); flips > 0; flips--) bytes[random(bytes.length)]! ^= 1 << random(8);
  return bytes;
}

/** The n-th batch, as a view. */
function batchOf(log: Buffer, n: number): Buffer {
  let from = 0;
  for (let left = n; left > 0; left--) from += 12 + log.readInt32BE(from + 8);
  return log.subarray(from, from + 12 + log.readInt32BE(from + 8));
}

function at(offset: number, bytes: Buffer): Buffer {
  bytes.writeBigInt64BE(BigInt(offset), 0); // outside the CRC
  return bytes;
}

function same(a: LogRecord, b: LogRecord): boolean {
  return (
    a.offset === b.offset &&
    a.timestamp === b.timestamp &&
    bytesEqual(a.key, b.key) &&
    bytesEqual(a.value, b.value) &&
    a.headers.length === b.headers.length &&
    a.headers.every(([name, value], n) => name === b.headers[n]![0] && bytesEqual(value, b.headers[n]![1]))
  );
}

function bytesEqual(a: Buffer | null, b: Buffer | null): boolean {
  return a === b || (a !== null && b !== null && a.equals(b));
}
