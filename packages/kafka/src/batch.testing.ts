import { BufferPool, type LogRecord, type OutRecord } from '@headwater/core';
import { FetchedRecords, type FetchedBytes } from './fetched.js';
import type { Packer } from './codecs.js';
import { encodeBatch, type BatchOptions, type BatchProducer } from './record-batch.js';

/** The bytes of one batch, in a buffer of their own. */
export function recordBatch(
  records: readonly OutRecord[],
  producer: BatchProducer,
  nowMs: number,
  packer?: Packer,
  kind: BatchOptions['kind'] = 'transactional',
): Buffer {
  return encodeBatch(records, producer, nowMs, { packer, kind, buffers: new BufferPool() }).bytes;
}

/** All that can be read of `fetched`, in portions. */
export function decodeFetched(
  fetched: FetchedBytes,
  portionBytes = Infinity,
): { records: LogRecord[]; nextOffset: number } {
  const decoder = new FetchedRecords(fetched);
  const records: LogRecord[] = [];
  while (!decoder.done) records.push(...decoder.read(portionBytes).records);
  return { records, nextOffset: decoder.nextOffset };
}
