import { BufferPool, type OutRecord } from '@headwater/core';
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
