import { randomBytes } from 'node:crypto';
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

  for (const compression of ['gzip', 'snappy', 'lz4', 'zstd'] as const) {
    it(`stops unpacking ${compression} at the limit`, async () => {
      const { codec, pack } = await packer(compression);
      const packed = pack(Buffer.alloc(1 << 20));
      expect(decompress(codec, packed, 1 << 20)).toHaveLength(1 << 20);
      expect(() => decompress(codec, packed, (1 << 20) - 1)).toThrow(/(larger|more) than/);
    });
  }

  it('counts what every form of lz4 block unpacks into, to the byte', async () => {
    const { codec, pack } = await packer('lz4');
    const text = Buffer.from(Array.from({ length: 40_000 }, (_, n) => `${n % 977} ${n % 31}`).join(' '));
    const mixed = Buffer.concat([randomBytes(300_000), text, Buffer.alloc(700_000), text.subarray(5), randomBytes(7)]);
    for (const part of [
      mixed,
      mixed.subarray(1, 300_000),
      text,
      text.subarray(0, 14),
      mixed.subarray(299_990, 300_500),
    ]) {
      expect(decompress(codec, pack(part), part.length).equals(part)).toBe(true);
      expect(() => decompress(codec, pack(part), part.length - 1)).toThrow('more than');
    }
  });

  it('takes no memory for what a frame of lz4 or zstd claims or unpacks into above the limit', async () => {
    const limit = 64 << 20;
    const { codec, pack } = await packer('lz4');
    const bomb = pack(Buffer.alloc(160 << 20));
    // A window of 2 GB, a content of 2 GB, each with one byte in it; and the first behind a frame that is harmless.
    const window = Buffer.from('28b52ffd00af09000041', 'hex');
    const content = Buffer.from('28b52ffda0ffffff7f09000041', 'hex');
    const small = Buffer.from('28b52ffd2001', 'hex');
    const harmless = Buffer.concat([small, Buffer.from('09000041', 'hex')]);
    expect(decompress(4, harmless).toString()).toBe('A');
    const before = process.memoryUsage.rss();
    expect(() => decompress(codec, bomb, limit)).toThrow('more than');
    for (const frame of [window, content, Buffer.concat([harmless, window])])
      expect(() => decompress(4, frame, limit)).toThrow('more than');
    expect(process.memoryUsage.rss() - before).toBeLessThan(limit);
  });

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
