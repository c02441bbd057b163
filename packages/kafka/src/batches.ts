import {
  BatchCutter,
  MAX_RECORD_BYTES,
  isRun,
  type Batch,
  type KnownLimits,
  type LogInput,
  type OutRecord,
} from '@headwater/core';
import { tooLarge } from './writer.errors.js';

const MAX_REQUEST_BYTES = 8_000_000;

/** The batches of what is appended together. */
export async function batchesOf(
  inputs: readonly LogInput[],
  partitionOf: (record: OutRecord) => number | Promise<number>,
  limits: KnownLimits,
): Promise<Batch[]> {
  const cutter = cutterOf(limits);
  for (const input of inputs) {
    if (isRun(input)) {
      cutter.addRun(input);
      continue;
    }
    const chosen = partitionOf(input);
    // Awaiting a number would cost a turn of the loop per record.
    cutter.add(input, typeof chosen === 'number' ? chosen : await chosen);
  }
  return cutter.batches;
}

/** The records of a batch, cut anew to what is known of the limits by now. */
export function recut({ partition, records }: Batch, limits: KnownLimits): Batch[] {
  const cutter = cutterOf(limits);
  for (const record of records) cutter.add(record, partition);
  return cutter.batches;
}

/** Requests to send one after the other: each has at most one batch per partition, and a bounded size. */
export function rounds(batches: readonly Batch[]): Batch[][] {
  const all: Batch[][] = [];
  let current: Batch[] = [];
  let keys = new Set<string>();
  let size = 0;
  for (const batch of batches) {
    const key = `${batch.topic}/${batch.partition}`;
    if (keys.has(key) || (size > 0 && size + batch.sizeAtMost > MAX_REQUEST_BYTES)) {
      all.push(current);
      current = [];
      keys = new Set();
      size = 0;
    }
    current.push(batch);
    keys.add(key);
    size += batch.sizeAtMost;
  }
  if (current.length > 0) all.push(current);
  return all;
}

function cutterOf(limits: KnownLimits): BatchCutter {
  return new BatchCutter(limits, (record, bytes) => tooLarge(record, bytes, MAX_RECORD_BYTES));
}
