import { describe, expect, it } from '@jest/globals';
import { decodeAssignment, decodeOwned, encodeAssignment, encodeSubscription } from './assignment-codec.js';
import { ByteWriter } from './bytes.js';

describe('subscriptions and assignments', () => {
  it('are read back as they were written', () => {
    expect(decodeOwned(encodeSubscription(['t', 'u'], [4, 2], 7))).toEqual([4, 2]);
    expect(decodeOwned(encodeSubscription(['t'], [], -1))).toEqual([]);
    for (const handOver of [
      { given: [1, 2], asked: [3], coming: [0, 4] },
      { given: [], asked: [], coming: [] },
    ])
      expect(decodeAssignment(encodeAssignment(['t', 'u'], handOver))).toEqual(handOver);
  });

  it('S72 take an assignment only from a member of ours, and what was owned from any version and user data', () => {
    const foreign = (userData: Buffer | undefined) => {
      const bytes = new ByteWriter().int16(3);
      bytes.array(['t'], (topic) => bytes.string(topic).array([0], (n) => bytes.int32(n)));
      return userData === undefined ? bytes.int32(-1).done() : bytes.bytes(userData).done();
    };
    for (const data of [undefined, Buffer.alloc(0), Buffer.from('stream')]) {
      expect(decodeAssignment(foreign(data))).toBeUndefined();
    }
    expect(decodeAssignment(Buffer.alloc(0))).toBeUndefined();
    const subscription = (version: number, userData: Buffer) => {
      const bytes = new ByteWriter().int16(version);
      bytes.array(['t'], (topic) => bytes.string(topic)).bytes(userData);
      if (version >= 1) bytes.array(['t'], (topic) => bytes.string(topic).array([3, 1], (n) => bytes.int32(n)));
      return bytes.int32(7).bytes(Buffer.from('what a later version adds')).done();
    };
    expect(decodeOwned(subscription(0, Buffer.from('old')))).toEqual([]);
    expect(decodeOwned(subscription(1, Buffer.alloc(0)))).toEqual([3, 1]);
    expect(decodeOwned(subscription(3, Buffer.from('of another version')))).toEqual([3, 1]);
  });
});
