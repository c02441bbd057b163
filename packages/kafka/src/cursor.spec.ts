import { beforeEach, describe, expect, it } from '@jest/globals';
import { recordBatch } from './batch.testing.js';
import { Cursor } from './cursor.js';
import type { FetchedPartition } from './requests/fetch.js';

const TO_THE_END = Infinity;

let cursor: Cursor;
beforeEach(() => {
  cursor = new Cursor('t', 0, 10);
});

describe('a cursor', () => {
  it('hands out what fetches brought, in order, one of them at a time, and knows where the next begins', () => {
    expect(cursor).toMatchObject({ end: 10, isFresh: true, isDrained: true, isReady: false });
    cursor.land(10, fetched([batch(10, 'a', 'b')], 20));
    expect(cursor).toMatchObject({ end: 12, isFresh: false, hasMore: true, isDrained: false, isReady: true });
    cursor.land(12, fetched([batch(12, 'c'), batch(13, 'd')], 14));
    expect(cursor).toMatchObject({ end: 14, hasMore: false });
    expect(taken(TO_THE_END)).toMatchObject({ from: 10, values: ['a', 'b'], nextOffset: 12, lastStableOffset: 20 });
    const waiting = cursor.waitingBytes;
    expect(taken(1)).toMatchObject({ from: 12, values: ['c'], nextOffset: 13, lastStableOffset: 14 });
    expect(cursor.waitingBytes).toBe(waiting / 2);
    expect(taken(1)).toMatchObject({ from: 13, values: ['d'], nextOffset: 14 });
    expect([cursor.end, cursor.isDrained, cursor.waitingBytes]).toEqual([14, true, 0]);
  });

  it('takes nothing that was asked for somewhere else, before it forgot or behind what has come', () => {
    cursor.land(10, fetched([batch(10, 'a')]));
    cursor.land(10, fetched([batch(10, 'a')]));
    cursor.land(12, fetched([batch(12, 'c')]));
    expect(taken(TO_THE_END)).toMatchObject({ values: ['a'] });
    expect(cursor).toMatchObject({ end: 11, isDrained: true });
    cursor.land(11, fetched([batch(11, 'b')]));
    cursor.forget();
    cursor.land(12, fetched([batch(12, 'c')]));
    expect(cursor).toMatchObject({ end: 11, isFresh: true, isDrained: true });
  });

  it('hands out what stands before a batch that cannot be read, then fails there, and asks for it again with all behind it', () => {
    const spoilt = batch(11, 'b');
    spoilt[spoilt.length - 2]! ^= 1;
    cursor.land(10, fetched([batch(10, 'a'), spoilt]));
    cursor.land(12, fetched([batch(12, 'c')]));
    expect(taken(TO_THE_END)).toMatchObject({ values: ['a'], nextOffset: 11 });
    expect(cursor.fault).toBeUndefined();
    expect(cursor.take(TO_THE_END)).toEqual({ batch: undefined, unpackedBytes: 0 });
    expect(cursor).toMatchObject({ fault: { code: 'LOG_CORRUPT', facts: { offset: 11 } }, isReady: true, end: 11 });
  });

  it('keeps what has come while it is paused', () => {
    cursor.land(10, fetched([batch(10, 'a')]));
    cursor.isPaused = true;
    expect(cursor.isReady).toBe(false);
    cursor.isPaused = false;
    expect(cursor.isReady).toBe(true);
    expect(taken(TO_THE_END)).toMatchObject({ values: ['a'] });
  });
});

function taken(maxBytes: number) {
  const { batch: of } = cursor.take(maxBytes);
  const { from, nextOffset, lastStableOffset, records } = of!;
  return { from, nextOffset, lastStableOffset, values: records.map(({ value }) => String(value)) };
}

function fetched(batches: readonly Buffer[], lastStableOffset = 100): FetchedPartition {
  const answer = { topic: 't', partition: 0, error: 0, highWatermark: lastStableOffset, aborted: [] };
  return { ...answer, lastStableOffset, bytes: Buffer.concat(batches) };
}

function batch(offset: number, ...values: readonly string[]): Buffer {
  const records = values.map((value) => ({ topic: 't', key: null, value: Buffer.from(value) }));
  const bytes = recordBatch(records, { producerId: 1n, epoch: 0, baseSequence: 0 }, 0);
  bytes.writeBigInt64BE(BigInt(offset), 0);
  return bytes;
}
