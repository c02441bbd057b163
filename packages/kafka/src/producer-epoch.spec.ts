import { describe, expect, it } from '@jest/globals';
import { ProducerEpoch } from './producer-epoch.js';

const LAST = 2 ** 31 - 1;

describe('a producer epoch', () => {
  it('S57 counts sequences per partition from 0, and after 2^31 - 1 from 0 again', () => {
    const epoch = new ProducerEpoch({ producerId: 1n, epoch: 0 });
    const take = (partition: number, records: number) => epoch.takeSequence({ topic: 't', partition }, records);
    expect([take(0, 5), take(0, LAST - 5), take(0, 1), take(0, 3)]).toEqual([0, 5, LAST, 0]);
    // A batch may lie across the end.
    expect([take(1, LAST - 1), take(1, 5), take(1, 1), take(1, 1)]).toEqual([0, LAST - 1, 3, 4]);
  });
});
