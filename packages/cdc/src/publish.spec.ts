import { describe, expect, it } from '@jest/globals';
import { systemClock } from '@headwater/core';
import type { LogWriter } from '@headwater/core';
import type { Lsn } from './lsn.js';
import type { Position } from './position.js';
import { Publisher } from './publish.js';

describe('Publisher', () => {
  it('writes the first row at once, and lets those that trickle in behind it share a write', async () => {
    let now = 1_000;
    const written: number[] = [];
    const writer = {
      transact: (inputs: readonly unknown[]) => {
        written.push(inputs.length);
        return Promise.resolve({ outcome: 'committed', appended: [] });
      },
    } as unknown as LogWriter;
    const limits = (topics: readonly string[]) =>
      Promise.resolve(new Map(topics.map((topic) => [topic, { partitions: 1, maxBatchBytes: 1_000_000 }])));
    const clock = { ...systemClock, elapsed: () => now };
    const options = { name: 'c', positionTopic: 'p', maxBatchBytes: 1_000_000, maxBatchRows: 1_000, clock };
    const position = { commitLsn: 0n, endLsn: 0n, xid: 0, snapshots: [] } as unknown as Position;
    const publisher = new Publisher(writer, limits, options, position, () => undefined);
    await publisher.open(['t']);
    let lsn = 0n;
    const row = () => {
      lsn += 10n;
      publisher.add({ topic: 't', key: Buffer.from(`${lsn}`), value: Buffer.from('v') });
      publisher.complete({ commitLsn: lsn as Lsn, endLsn: (lsn + 5n) as Lsn, xid: Number(lsn) });
    };
    const flush = async () => {
      publisher.flush();
      await publisher.inFlight;
      return written.length;
    };

    row();
    expect(await flush()).toBe(1);
    now += 2;
    row();
    expect(publisher.flushDelayMs).toBe(3);
    expect(await flush()).toBe(1);
    now += 2;
    row();
    expect(await flush()).toBe(1);
    now += 1;
    expect(await flush()).toBe(2);
    now += 60;
    row();
    expect(await flush()).toBe(3);
    row();
    // Somebody who needs it now does not wait.
    await publisher.drain();
    expect(written).toHaveLength(4);
  });
});
