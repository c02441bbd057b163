import { expect, it } from '@jest/globals';
import type { FetchedBatch, Log, LogReader } from './log.js';
import { readCommitted } from './read-committed.js';

/** A log of one topic with two partitions of three records; its brokers give what `polls` has, one after the other, and then nothing. */
function logThatGives(polls: readonly FetchedBatch[][]): {
  log: Log;
  waits: (number | undefined)[];
  closed: () => boolean;
} {
  const left = [...polls];
  const waits: (number | undefined)[] = [];
  let closed = false;
  const reader: Partial<LogReader> = {
    seek: () => undefined,
    drop: () => undefined,
    poll: ({ maxWaitMs } = {}) => Promise.resolve((waits.push(maxWaitMs), left.shift() ?? [])),
    close: () => Promise.resolve(void (closed = true)),
  };
  const offsets = (topic: string) =>
    Promise.resolve([0, 1].map((partition) => ({ topic, partition, start: 0, lastStable: 3, high: 3 })));
  const log = { reader: () => reader, admin: { offsets } } as unknown as Log;
  return { log, waits, closed: () => closed };
}

it('rejects when a partition gives nothing more for half a minute, and says which', async () => {
  const whole = {
    topic: 't',
    partition: 0,
    from: 0,
    records: [],
    nextOffset: 3,
    lastStableOffset: 3,
    highWatermark: 3,
  };
  const { log, waits, closed } = logThatGives([[whole]]);
  await expect(readCommitted(log, 't', () => undefined)).rejects.toMatchObject({
    code: 'LOG_READ_STALLED',
    retryable: true,
    message: expect.stringContaining('nothing more of t, partition 1, could be read for 30 s'),
  });
  // Not in one long poll: the partition may have another leader by then.
  expect(waits).toEqual(Array.from({ length: 1 + 120 }, () => 250));
  expect(closed()).toBe(true);
});
