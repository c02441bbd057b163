import { describe, expect, it } from '@jest/globals';
import { compressSync } from 'snappy';
import { decompress, packer, type Compression } from './codecs.js';

const records = Buffer.from(JSON.stringify(Array.from({ length: 500 }, (_, id) => ({ id, owner: `owner ${id % 7}` }))));

describe('codecs', () => {
  for (const compression of ['gzip', 'snappy', 'lz4', 'zstd'] as const satisfies readonly Compression[]) {
    it(`unpacks what it packs with ${compression}, the empty batch too`, async () => {
      const { codec, pack } = await packer(compression);
      const packed = pack(records);
      expect(packed.length).toBeLessThan(records.length);
      expect(decompress(codec, packed).equals(records)).toBe(true);
      expect(decompress(codec, pack(Buffer.alloc(0)))).toHaveLength(0);
    });

    it(`refuses bytes that are not ${compression}`, async () => {
      const { codec, pack } = await packer(compression);
      expect(() => decompress(codec, pack(records).subarray(0, 100))).toThrow();
      expect(() => decompress(codec, Buffer.from('neither'))).toThrow();
    });
  }

  for (const compression of ['gzip', 'snappy', 'zstd'] as const) {
    it(`stops unpacking ${compression} at the limit`, async () => {
      const { codec, pack } = await packer(compression);
      const packed = pack(Buffer.alloc(1 << 20));
      expect(decompress(codec, packed, 1 << 20)).toHaveLength(1 << 20);
      expect(() => decompress(codec, packed, (1 << 20) - 1)).toThrow(/(larger|more) than/);
    });
  }

  it('reads snappy as a bare block, and as several chunks', () => {
    const [a, b] = [records.subarray(0, 1_000), records.subarray(1_000)].map((part) => compressSync(part));
    const header = Buffer.from('82534e41505059000000000100000001', 'hex');
    expect(decompress(2, compressSync(records)).equals(records)).toBe(true);
    const chunks = Buffer.concat([header, length(a!), a!, length(b!), b!]);
    expect(decompress(2, chunks).equals(records)).toBe(true);
    expect(() => decompress(2, chunks.subarray(0, -1))).toThrow('ends past its batch');
  });

  it('names a codec it does not know', () => {
    expect(() => decompress(7, records)).toThrow(
      expect.objectContaining({ code: 'LOG_CODEC_MISSING', facts: { codec: 'number 7' } }),
    );
  });
});

function length({ length: of }: Buffer): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(of);
  return bytes;
}
