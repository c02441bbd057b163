import { decodeRun } from '@headwater/core';
import {
  CONCURRENT_TRANSACTIONS,
  INVALID_PRODUCER_ID_MAPPING,
  KafkaError,
  NOT_ENOUGH_REPLICAS_AFTER_APPEND,
  REQUEST_TIMED_OUT,
  isRecordInvalid,
  isRetriable,
  isTooLarge,
  isWriterFenced,
  refused,
} from './kafka.errors.js';
import type { Lane } from './lane.js';
import { batchBytes, produce, type EncodedBatch, type ProducedPartition } from './requests/produce.js';
import type { Wire } from './wire.js';
import { batchTooLarge, expired, recordInvalid, tooLarge, writerFenced } from './writer.errors.js';

/** What one attempt brought for one batch. `again`: the same bytes may be sent once more; the broker knows them by their sequence. */
export type Attempt =
  | { readonly batch: EncodedBatch; readonly result: 'appended'; readonly baseOffset: number }
  | {
      readonly batch: EncodedBatch;
      readonly result: 'again';
      readonly cause: unknown;
      /** The leader may be another one: look it up before the next attempt. */
      readonly moved: boolean;
      /** It may be in the log although no answer tells so. */
      readonly lost: boolean;
    }
  | { readonly batch: EncodedBatch; readonly result: 'refused'; readonly error: number; readonly cause: KafkaError };

export interface Sender {
  readonly wire: Pick<Wire, 'byLeader' | 'send' | 'requestTimeoutMs' | 'buffers' | 'batchLimits'>;
  readonly lane: Lane;
  /** null: outside transactions. */
  readonly transactionalId: string | null;
  readonly apiVersion: 9 | 12;
}

/** Answers that leave open whether the batch is in the log. */
const LOST: ReadonlySet<number> = new Set([REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND]);

/**
 * Sends each batch to its leader, one request per broker, and tells of every batch what became of it, in the order given. At most one batch
 * per partition. Rejects only with what no repetition heals: closed, wrong credentials.
 */
export async function produceOnce(sender: Sender, batches: readonly EncodedBatch[]): Promise<Attempt[]> {
  const { led, leaderless } = await leadersOf(sender, batches);
  const attempts = new Map<EncodedBatch, Attempt>();
  for (const batch of leaderless) attempts.set(batch, again(batch, 'no leader', { moved: true, lost: false }));
  const answers = await Promise.allSettled([...led].map(([nodeId, ofNode]) => produceTo(sender, nodeId, ofNode)));
  for (const answer of answers) {
    if (answer.status === 'rejected') throw answer.reason;
    for (const attempt of answer.value) attempts.set(attempt.batch, attempt);
  }
  return batches.map((batch) => attempts.get(batch)!);
}

/** The pause before the next attempt: short while only the broker is busy, growing while a leader is looked for. */
export function pauseAfter(previousMs: number, { moved }: { readonly moved: boolean }): number {
  return moved ? Math.min(Math.max(previousMs * 2, 25), 200) : Math.min(Math.max(previousMs * 2, 4), 10);
}

async function leadersOf(
  { wire }: Sender,
  batches: readonly EncodedBatch[],
): Promise<{ led: Map<number, EncodedBatch[]>; leaderless: readonly EncodedBatch[] }> {
  try {
    return await wire.byLeader(batches);
  } catch (error) {
    if (error instanceof KafkaError && !error.retryable) throw error;
    return { led: new Map(), leaderless: batches };
  }
}

async function produceTo(sender: Sender, nodeId: number, batches: readonly EncodedBatch[]): Promise<Attempt[]> {
  const { wire, lane, apiVersion, transactionalId } = sender;
  let answers: readonly ProducedPartition[];
  try {
    answers = await wire.send(nodeId, produce(apiVersion, transactionalId, wire.requestTimeoutMs, batches), lane);
  } catch (cause) {
    if (cause instanceof KafkaError && !cause.retryable) throw cause;
    return batches.map((batch) => again(batch, cause, { moved: true, lost: true }));
  }
  const attempts = batches.map(async (batch): Promise<Attempt> => {
    const answer = answers.find((of) => of.topic === batch.topic && of.partition === batch.partition);
    // Not told is not done: the repetition is recognised by its sequence if it was.
    if (answer === undefined) return again(batch, 'absent from the answer', { moved: true, lost: true });
    if (isTooLarge(answer.error)) return oversized(sender, batch, answer.error);
    const attempt = judged(batch, answer, transactionalId);
    // It is never sent again, and requests have bytes of their own.
    if (attempt.result === 'appended' && batch.buffer !== undefined) wire.buffers.give(batch.buffer);
    return attempt;
  });
  return Promise.all(attempts);
}

/** A record that is refused alone is too large. Several may have been together only because the topic's limit was not known. */
async function oversized({ wire }: Sender, batch: EncodedBatch, error: number): Promise<Attempt> {
  const { topic, partition, records } = batch;
  const bytes = batchBytes(batch);
  if (records === 1) {
    const { key } = recordAt(batch, 0);
    return { batch, result: 'refused', error, cause: tooLarge({ topic, partition, key }, bytes) };
  }
  const limit = await wire.batchLimits.learn(topic, batch.unpackedBytes ?? bytes);
  return { batch, result: 'refused', error, cause: batchTooLarge({ topic, partition, records }, bytes, limit) };
}

/** Of what a record is, not of where the cluster stands: it would be refused whenever it is sent. */
function invalid(batch: EncodedBatch, { error, message, refused: records = [] }: ProducedPartition): KafkaError {
  const { topic, partition } = batch;
  // Where a broker names none, the only one there is.
  const index = records[0]?.index ?? (batch.records === 1 ? 0 : undefined);
  const key = index === undefined ? undefined : recordAt(batch, index).key;
  const said = [...new Set([message, ...records.map((of) => of.message)])].filter((text) => text !== undefined);
  return recordInvalid({ topic, partition, key }, error, said.join(' '));
}

function recordAt({ run, from }: EncodedBatch, index: number): { readonly key?: Buffer | null } {
  return (run === undefined ? from : decodeRun(run))?.[index] ?? {};
}

function judged(batch: EncodedBatch, answer: ProducedPartition, transactionalId: string | null): Attempt {
  const { error } = answer;
  if (error === 0) return { batch, result: 'appended', baseOffset: answer.baseOffset };
  const { topic, partition } = batch;
  const refusal = refused('Produce', error, { topic, partition, ...(transactionalId !== null && { transactionalId }) });
  // A broker that timed out waiting for its replicas has appended and may yet keep it.
  if (isRetriable(error))
    return again(batch, refusal, { moved: error !== CONCURRENT_TRANSACTIONS, lost: LOST.has(error) });
  if (isRecordInvalid(error)) return { batch, result: 'refused', error, cause: invalid(batch, answer) };
  if (transactionalId !== null && error === INVALID_PRODUCER_ID_MAPPING)
    return { batch, result: 'refused', error, cause: expired(transactionalId) };
  if (transactionalId !== null && isWriterFenced(error))
    return { batch, result: 'refused', error, cause: writerFenced(transactionalId, error, 'Produce') };
  return { batch, result: 'refused', error, cause: refusal };
}

function again(batch: EncodedBatch, cause: unknown, how: { readonly moved: boolean; readonly lost: boolean }): Attempt {
  return { batch, result: 'again', cause, ...how };
}
