import {
  BATCH_HEADER_BYTES,
  BatchCutter,
  MAX_RECORD_BYTES,
  decodeRun,
  isRun,
  recordBodyBytes,
  varintSize,
  type Batch,
  type KnownLimits,
  type LogInput,
  type OutRecord,
} from '@headwater/core';
import { tooLarge } from './refusals.js';

/** What one client has learnt of the topics whose limit is below a batch: batches are cut to it from then on. */
export class LearntLimits implements KnownLimits {
  readonly #limits = new Map<string, number>();

  of(topic: string): number | undefined {
    return this.#limits.get(topic);
  }

  learn(topic: string, limit: number): void {
    this.#limits.set(topic, Math.min(limit, this.of(topic) ?? limit));
  }
}

/** Cuts what is appended together as Kafka's driver does. Throws RECORD_TOO_LARGE for what no topic takes. */
export function batchesOf(
  inputs: readonly LogInput[],
  partitionOf: (record: OutRecord) => number,
  limits: KnownLimits,
): readonly Batch[] {
  const cutter = new BatchCutter(limits, ({ topic, partition, key }, bytes) =>
    tooLarge(topic, partition, key, bytes, MAX_RECORD_BYTES),
  );
  for (const input of inputs) {
    if (isRun(input)) cutter.addRun(input);
    else cutter.add(input, partitionOf(input));
  }
  return cutter.batches;
}

/** The records of a batch, and what they take on a broker's disk. */
export function unpacked(
  { records, run }: Batch,
  now: number,
): { readonly records: OutRecord[]; readonly bytes: number } {
  if (run !== undefined) return { records: decodeRun(run), bytes: run.bytes.length + BATCH_HEADER_BYTES };
  const first = records[0]?.timestamp ?? now;
  let bytes = BATCH_HEADER_BYTES;
  for (const [index, record] of records.entries()) {
    const body = recordBodyBytes(record, index, (record.timestamp ?? now) - first);
    bytes += varintSize(body) + body;
  }
  return { records, bytes };
}
