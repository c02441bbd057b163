import { describe, expect, it } from '@jest/globals';
import { putVarint } from '@headwater/core';
import { ByteReader, ByteWriter } from './bytes.js';

describe('bytes', () => {
  it('writes zigzag as the protocol says', () => {
    const bytesOf = (value: number) => {
      const target = Buffer.alloc(8);
      return [...target.subarray(0, putVarint(target, 0, value))];
    };
    expect([0, -1, 1, -2, 300].map(bytesOf)).toEqual([[0], [1], [2], [3], [0xd8, 0x04]]);
  });

  it('grows, and reads back every type', () => {
    const writer = new ByteWriter(Buffer.alloc(1))
      .int8(-3)
      .int16(-300)
      .int32(70_000)
      .int64(2 ** 40)
      .uvarint(300)
      .bool(true);
    writer.compactString('é').compactString(null).string('abc').compactBytes(Buffer.from('xy'));
    writer.compactArray([1, 2], (n) => writer.int8(n)).tags();
    const reader = new ByteReader(writer.done());
    expect([reader.int8(), reader.int16(), reader.int32(), reader.int64(), reader.uvarint(), reader.bool()]).toEqual([
      -3,
      -300,
      70_000,
      2 ** 40,
      300,
      true,
    ]);
    expect([reader.compactString(), reader.compactString(), reader.string()]).toEqual(['é', null, 'abc']);
    expect(reader.compactBytes()).toEqual(Buffer.from('xy'));
    expect(reader.compactArray(() => reader.int8())).toEqual([1, 2]);
    reader.tags();
    expect(reader.at).toBe(reader.source.length);
  });
});
