import { describe, expect, it } from '@jest/globals';
import { unique } from './broker.testing.js';
import { CONCURRENT_TRANSACTIONS } from './kafka.errors.js';
import { medianGap } from './median-gap.testing.js';
import { describeTransaction } from './requests/admin.js';
import { TRANSACTION } from './requests/call.js';
import { testWire } from './wire.testing.js';

describe('a wire', () => {
  it('S55 asks a coordinator again within 50 ms while it is ending a transaction', async () => {
    const wire = testWire();
    const id = unique('writer');
    const askedAt: number[] = [];
    const call = {
      ...describeTransaction(id),
      decode() {
        askedAt.push(performance.now());
        return { error: askedAt.length <= 10 ? CONCURRENT_TRANSACTIONS : 0 };
      },
    };
    await wire.coordinated(TRANSACTION, id, call, wire.lane(), { deadlineMs: 30_000 });
    expect(askedAt).toHaveLength(11);
    expect(medianGap(askedAt)).toBeLessThan(50);
    await wire.close();
  });
});
