import type { OpenTransaction, TopicPartition } from '@headwater/core';
import { KafkaError, refused } from './kafka.errors.js';
import {
  describeProducers,
  describeTransaction,
  listTransactions,
  writeAbortMarker,
  type DescribedProducer,
  type DescribedTransaction,
} from './requests/admin.js';
import { TRANSACTION } from './requests/call.js';
import { initProducerId } from './requests/transaction.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

const PATIENCE_MS = 30_000;
const TRANSACTION_LOG = '__transaction_state';
const TRANSACTIONAL_ID_NOT_FOUND = 105;
/** What the fenced id's next writer replaces by its own. */
const FENCED_TIMEOUT_MS = 60_000;

/** Transactions open on the topic longer than `olderThanMs`. One without a coordinator has no start: its last record's time counts. */
export async function openTransactions(
  wire: Wire,
  topic: string,
  olderThanMs: number,
  nowMs: number,
): Promise<OpenTransaction[]> {
  const count = (await wire.leaders(topic))?.length ?? 0;
  if (count === 0)
    throw new KafkaError('LOG_TOPIC_MISSING', `topic ${topic} does not exist. Check its name.`, { facts: { topic } });
  const producers = await openProducers(
    wire,
    Array.from({ length: count }, (_, partition) => ({ topic, partition })),
  );
  const ids = await transactionalIds(wire, [...new Set(producers.map(({ producerId }) => producerId))]);
  const found: OpenTransaction[] = [];
  for (const { lastTimestampMs, ...producer } of producers) {
    const transactionalId = ids.get(producer.producerId);
    const known = transactionalId === undefined ? undefined : await describe(wire, transactionalId);
    const coordinated = known !== undefined && isOpen(known) && isOf(known, producer);
    const ageMs = nowMs - (coordinated ? known.startedAtMs : lastTimestampMs);
    // A record's time may be ahead of ours.
    if (Math.max(0, ageMs) < olderThanMs) continue;
    found.push(coordinated ? { ...producer, transactionalId, startedAtMs: known.startedAtMs } : producer);
  }
  return found.sort((a, b) => a.partition - b.partition || a.firstOffset - b.firstOffset);
}

export async function abortOpenTransaction(wire: Wire, open: OpenTransaction): Promise<void> {
  const { transactionalId } = open;
  if (transactionalId === undefined) await markAborted(wire, open);
  else await fence(wire, transactionalId, open);
  await until(wire, open, async () => !(await openProducers(wire, [open])).some((of) => isSame(of, open)));
}

/** Its coordinator knows the transaction: aborting it there keeps its partitions together, and its writer from going on. */
async function fence(wire: Wire, transactionalId: string, open: OpenTransaction): Promise<void> {
  const known = await describe(wire, transactionalId);
  // A later writer of that id must not be fenced for a transaction that is over.
  if (known === undefined || known.state !== 'Ongoing' || !isOf(known, open)) return;
  const lane = wire.lane();
  try {
    const call = initProducerId(transactionalId, FENCED_TIMEOUT_MS);
    const patience = { deadlineMs: PATIENCE_MS };
    const answer = await wire.coordinated(TRANSACTION, transactionalId, call, lane, patience);
    if (answer.error !== 0) throw refused('InitProducerId', answer.error, { transactionalId });
  } finally {
    await wire.release(lane);
  }
}

async function markAborted(wire: Wire, open: OpenTransaction): Promise<void> {
  const { topic, partition } = open;
  // A second marker would do no harm, but the epoch may have moved on.
  if (!(await openProducers(wire, [open])).some((of) => isSame(of, open))) return;
  const { led } = await wire.byLeader([open]);
  for (const nodeId of led.keys()) {
    const { error } = await wire.send(nodeId, writeAbortMarker(open));
    if (error !== 0) throw refused('WriteTxnMarkers', error, { topic, partition, producerId: open.producerId });
  }
}

async function openProducers(wire: Wire, partitions: readonly TopicPartition[]): Promise<DescribedProducer[]> {
  const { led, leaderless } = await wire.byLeader(partitions);
  if (leaderless.length > 0) {
    const [{ topic, partition }] = leaderless as [TopicPartition];
    throw unreachable('DescribeProducers', `${topic}-${partition}`, 'no leader');
  }
  const answers = await Promise.all([...led].map(([nodeId, of]) => wire.send(nodeId, describeProducers(of))));
  return answers.flat().flatMap(({ topic, partition, error, open }) => {
    if (error !== 0) throw refused('DescribeProducers', error, { topic, partition });
    return open;
  });
}

/** Those that a coordinator knows. Rejects when one is missing while a coordinator is: what only that one knows would look as if it hung. */
async function transactionalIds(wire: Wire, producerIds: readonly bigint[]): Promise<Map<bigint, string>> {
  if (producerIds.length === 0) return new Map();
  const ids = await listedIds(wire, producerIds);
  if (producerIds.every((id) => ids.has(id))) return ids;
  await wire.refresh([TRANSACTION_LOG]);
  const leaderless = (wire.knownLeaders(TRANSACTION_LOG) ?? []).findIndex((leader) => leader < 0);
  if (leaderless >= 0) throw unreachable('ListTransactions', `${TRANSACTION_LOG}-${leaderless}`, 'no coordinator');
  // One may have been missing a moment ago.
  return listedIds(wire, producerIds);
}

/** Every broker knows only the ids that it coordinates. */
async function listedIds(wire: Wire, producerIds: readonly bigint[]): Promise<Map<bigint, string>> {
  const ids = new Map<bigint, string>();
  await wire.refresh([]);
  const answers = await Promise.all(wire.nodeIds().map((nodeId) => wire.send(nodeId, listTransactions(producerIds))));
  for (const { error, transactions } of answers) {
    if (error !== 0) throw refused('ListTransactions', error);
    for (const { producerId, transactionalId } of transactions) ids.set(producerId, transactionalId);
  }
  return ids;
}

async function describe(wire: Wire, transactionalId: string): Promise<DescribedTransaction | undefined> {
  const lane = wire.lane();
  try {
    const call = describeTransaction(transactionalId);
    const answer = await wire.coordinated(TRANSACTION, transactionalId, call, lane, { deadlineMs: PATIENCE_MS });
    if (answer.error === TRANSACTIONAL_ID_NOT_FOUND) return undefined;
    if (answer.error !== 0) throw refused('DescribeTransactions', answer.error, { transactionalId });
    return answer;
  } finally {
    await wire.release(lane);
  }
}

/** Not yet ended, or being ended by its coordinator. */
function isOpen({ state }: DescribedTransaction): boolean {
  return state === 'Ongoing' || state === 'PrepareCommit' || state === 'PrepareAbort' || state === 'PrepareEpochFence';
}

/** With transaction.version 2 a transaction that is being ended has the next epoch at its coordinator. */
function isOf(known: DescribedTransaction, { producerId, epoch }: { producerId: bigint; epoch: number }): boolean {
  const ending = known.state !== 'Ongoing' && known.epoch === epoch + 1;
  return known.producerId === producerId && (known.epoch === epoch || ending);
}

function isSame(of: DescribedProducer, open: OpenTransaction): boolean {
  return of.producerId === open.producerId && of.firstOffset === open.firstOffset;
}

async function until(wire: Wire, { topic, partition }: TopicPartition, done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    let last: unknown = 'the transaction is still open';
    try {
      if (await done()) return;
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      last = error;
      await wire.tryRefresh([topic]);
    }
    wire.assertOpen();
    if (performance.now() > deadline) throw unreachable('DescribeProducers', `${topic}-${partition}`, last);
    await wait(50, wire.closing.signal);
  }
}
