import {
  partitionOf,
  type GroupOffsets,
  type LogTransaction,
  type LogWriter,
  type Outcome,
  type OutRecord,
  type TopicPartition,
  type WriterOptions,
} from '@headwater/core';
import {
  DUPLICATE_SEQUENCE_NUMBER,
  INVALID_TXN_STATE,
  KafkaError,
  MESSAGE_TOO_LARGE,
  RECORD_LIST_TOO_LARGE,
  isMemberFenced,
  isRetriable,
  isWriterFenced,
  refused,
} from './kafka.errors.js';
import { closedError, type Lane } from './lane.js';
import { BATCH_HEADER_BYTES, encodeBatch, recordBytesAtMost, sequenceAfter } from './record-batch.js';
import { GROUP, TRANSACTION, type Answer, type Call, type CoordinatorType } from './requests/call.js';
import { produce, type EncodedBatch, type ProducedPartition } from './requests/produce.js';
import {
  addOffsetsToTxn,
  addPartitionsToTxn,
  endTxn,
  initProducerId,
  txnOffsetCommit,
  type Producer,
} from './requests/transaction.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

const FENCE_PATIENCE_MS = 30_000;
/** Below the broker's default message.max.bytes of 1,048,588. */
const MAX_BATCH_BYTES = 1_000_000;
const MAX_REQUEST_BYTES = 8_000_000;

/** Records of one partition that go into one batch. */
interface Chunk extends TopicPartition {
  readonly records: OutRecord[];
  sizeAtMost: number;
}

export class KafkaWriter implements LogWriter {
  readonly transactionalId: string;
  readonly timeoutMs: number;
  readonly wire: Wire;
  readonly #lane: Lane;
  readonly #sequences = new Map<string, number>();
  #producer: Producer | undefined;
  #open: KafkaTransaction | undefined;
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;
  #closed = false;

  constructor(wire: Wire, options: WriterOptions) {
    this.wire = wire;
    wire.adopt(this.#stoppable);
    this.#lane = wire.lane();
    this.transactionalId = options.transactionalId;
    this.timeoutMs = options.transactionTimeoutMs ?? 8_000;
  }

  async fence(): Promise<void> {
    this.#assertOpen();
    this.#producer = undefined;
    this.#open = undefined;
    await this.#initialise(undefined, FENCE_PATIENCE_MS);
  }

  begin(): LogTransaction {
    if (this.#closed) return new KafkaTransaction(this, this.#lane, undefined, closedError());
    if (this.#open !== undefined) {
      const busy = new KafkaError(
        'LOG_WRITER_BUSY',
        `${this.transactionalId} has a transaction open. Commit or abort it first.`,
      );
      return new KafkaTransaction(this, this.#lane, undefined, busy);
    }
    if (this.#producer === undefined) {
      const notReady = new KafkaError(
        'LOG_WRITER_NOT_READY',
        `${this.transactionalId} is not fenced. Call fence() first.`,
      );
      return new KafkaTransaction(this, this.#lane, undefined, notReady);
    }
    this.#open = new KafkaTransaction(this, this.#lane, this.#producer);
    return this.#open;
  }

  async transact(records: readonly OutRecord[], offsets?: GroupOffsets): Promise<Outcome> {
    const transaction = this.begin() as KafkaTransaction;
    // Not awaited: records and offsets go out together; commit waits for both.
    transaction.append(records).catch(() => undefined);
    return transaction.commit(offsets);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.wire.dismiss(this.#stoppable);
    const open = this.#open;
    if (open !== undefined && !this.wire.closing.signal.aborted) await open.abort(closedError());
    this.#producer = undefined;
    await this.wire.release(this.#lane);
  }

  /** Takes the sequence of the next batch on that partition. */
  takeSequence({ topic, partition }: TopicPartition, records: number): number {
    const key = `${topic}/${partition}`;
    const sequence = this.#sequences.get(key) ?? 0;
    this.#sequences.set(key, sequenceAfter(sequence, records));
    return sequence;
  }

  /** The transaction ended, and what the writer is now: `next` as the broker told, 'same', or 'unfenced' (fence() is needed). */
  ended(transaction: KafkaTransaction, next: { producerId: bigint; epoch: number } | 'same' | 'unfenced'): void {
    if (this.#open !== transaction) return;
    this.#open = undefined;
    if (next === 'same') return;
    this.#sequences.clear();
    this.#producer = next === 'unfenced' ? undefined : { transactionalId: this.transactionalId, ...next };
  }

  /** After an abort without transaction.version 2 the sequences no longer fit: takes a new epoch, unless another writer took the id. */
  async renew(transaction: KafkaTransaction, patienceMs: number): Promise<void> {
    if (this.#open === transaction) await this.#initialise(this.#producer, patienceMs);
  }

  async #initialise(current: Producer | undefined, patienceMs: number): Promise<void> {
    const call = initProducerId(this.transactionalId, this.timeoutMs, current);
    const answer = await this.wire.coordinated(TRANSACTION, this.transactionalId, call, this.#lane, {
      deadlineMs: patienceMs,
    });
    if (answer.error !== 0) throw refused('InitProducerId', answer.error, { transactionalId: this.transactionalId });
    this.#assertOpen();
    this.#sequences.clear();
    this.#producer = { transactionalId: this.transactionalId, producerId: answer.producerId, epoch: answer.epoch };
  }

  #assertOpen(): void {
    if (this.#closed) throw closedError();
  }
}

class KafkaTransaction implements LogTransaction {
  readonly #writer: KafkaWriter;
  readonly #lane: Lane;
  readonly #producer: Producer | undefined;
  readonly #wire: Wire;
  readonly #added = new Set<string>();
  #failure: { readonly cause: unknown } | undefined;
  /** The last append; the next one waits for it, because sequences must arrive in order. */
  #tail: Promise<void> = Promise.resolve();
  /** When the broker may first have heard of this transaction; undefined: nothing to end there. */
  #openedAt: number | undefined;
  #over = false;

  constructor(writer: KafkaWriter, lane: Lane, producer: Producer | undefined, failure?: KafkaError) {
    this.#writer = writer;
    this.#wire = writer.wire;
    this.#lane = lane;
    this.#producer = producer;
    if (failure !== undefined) this.#failure = { cause: failure };
  }

  append(records: readonly OutRecord[]): Promise<void> {
    if (this.#over) return Promise.reject(over());
    const appended = this.#tail.then(async () => {
      if (this.#failure !== undefined) throw this.#failure.cause;
      if (records.length === 0) return;
      try {
        await this.#append(records);
      } catch (cause) {
        this.#failure ??= { cause };
        throw cause;
      }
    });
    this.#tail = appended.catch(() => undefined);
    return appended;
  }

  async commit(offsets?: GroupOffsets): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: over() };
    this.#over = true;
    const withOffsets = offsets !== undefined && offsets.offsets.length > 0 && this.#failure === undefined;
    const committing = withOffsets
      ? this.#commitOffsets(offsets).catch((cause: unknown) => void (this.#failure ??= { cause }))
      : undefined;
    // Never leave a request in flight: one that arrives after EndTxn would add to a transaction that is over.
    await Promise.all([this.#tail, committing]);
    if (this.#failure !== undefined) return this.#abort(this.#failure.cause);
    if (this.#openedAt === undefined) {
      this.#writer.ended(this, 'same');
      return { outcome: 'committed' };
    }
    return this.#end('commit');
  }

  async abort(cause?: unknown): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: over() };
    this.#over = true;
    await this.#tail;
    return this.#abort(cause ?? this.#failure?.cause ?? abortedByOwner());
  }

  async #abort(cause: unknown): Promise<Outcome> {
    const fenced = fencedWho(this.#failure?.cause);
    if (fenced === 'writer') {
      // Whoever fenced this writer has aborted its transaction: no commit of it was ever asked for.
      this.#writer.ended(this, 'unfenced');
      return { outcome: 'aborted', cause, fenced };
    }
    if (this.#openedAt === undefined) {
      this.#writer.ended(this, 'same');
      return { outcome: 'aborted', cause, ...(fenced && { fenced }) };
    }
    return this.#end('abort', cause, fenced);
  }

  async #end(how: 'commit' | 'abort', reason?: unknown, fenced?: 'member'): Promise<Outcome> {
    const writer = this.#writer;
    let lost = false;
    try {
      const version2 = await this.#wire.hasTransactionVersion2();
      const deadlineMs = Math.max(this.#remainingMs(), 2 * this.#wire.requestTimeoutMs);
      const call = endTxn(version2 ? 5 : 3, this.#producer!, how);
      // With transaction.version 2 a repeated EndTxn is answered truly, because every transaction has its own epoch. Without it the
      // answer to a repetition could tell of something else.
      const answer = await this.#wire.coordinated(TRANSACTION, writer.transactionalId, call, this.#lane, {
        deadlineMs,
        onLost: (cause) => {
          lost = true;
          if (!version2) throw answerLost(writer.transactionalId, cause);
        },
      });
      // Taken over, or ended by the broker's time-out. Sure only while no commit of ours can have been done unheard.
      if ((isWriterFenced(answer.error) || answer.error === INVALID_TXN_STATE) && (how === 'abort' || !lost)) {
        writer.ended(this, 'unfenced');
        const cause = reason ?? writerFenced(writer.transactionalId, answer.error, 'EndTxn');
        return { outcome: 'aborted', cause, fenced: 'writer' };
      }
      if (answer.error !== 0) throw refused('EndTxn', answer.error, { transactionalId: writer.transactionalId });
      if (how === 'abort' && !version2) await writer.renew(this, deadlineMs);
      writer.ended(this, answer.next ?? 'same');
      return how === 'commit'
        ? { outcome: 'committed' }
        : { outcome: 'aborted', cause: reason, ...(fenced && { fenced }) };
    } catch (cause) {
      writer.ended(this, 'unfenced');
      return { outcome: 'unknown', cause };
    }
  }

  async #append(records: readonly OutRecord[]): Promise<void> {
    const nowMs = Date.now();
    const version2 = await this.#wire.hasTransactionVersion2();
    const packer = await this.#wire.packer();
    const chunks = await this.#split(records);
    this.#openedAt ??= performance.now();
    if (!version2) await this.#addPartitions(chunks);
    for (const round of rounds(chunks)) {
      const batches = round.map((chunk) => ({
        topic: chunk.topic,
        partition: chunk.partition,
        bytes: encodeBatch(
          chunk.records,
          { ...this.#producer!, baseSequence: this.#writer.takeSequence(chunk, chunk.records.length) },
          nowMs,
          packer,
        ),
      }));
      await this.#produce(version2 ? 12 : 9, batches);
    }
  }

  /** Records per partition, in order, cut where a batch is full. */
  async #split(records: readonly OutRecord[]): Promise<Chunk[]> {
    const chunks: Chunk[] = [];
    const filling = new Map<string, Map<number, Chunk>>();
    for (const record of records) {
      const { topic } = record;
      const partition = record.partition ?? (await this.#partitionOf(record));
      const size = recordBytesAtMost(record);
      if (size + BATCH_HEADER_BYTES > MAX_BATCH_BYTES) throw tooLarge(topic, partition, size);
      let ofTopic = filling.get(topic);
      if (ofTopic === undefined) filling.set(topic, (ofTopic = new Map()));
      const current = ofTopic.get(partition);
      if (current !== undefined && current.sizeAtMost + size <= MAX_BATCH_BYTES) {
        current.records.push(record);
        current.sizeAtMost += size;
        continue;
      }
      const chunk: Chunk = { topic, partition, records: [record], sizeAtMost: BATCH_HEADER_BYTES + size };
      ofTopic.set(partition, chunk);
      chunks.push(chunk);
    }
    return chunks;
  }

  #partitionOf({ topic, key }: OutRecord): number | Promise<number> {
    if (key === null) {
      throw new KafkaError(
        'LOG_PARTITION_MISSING',
        `a record for ${topic} has neither a key nor a partition. Give it one of them.`,
        {
          facts: { topic },
        },
      );
    }
    const leaders = this.#wire.knownLeaders(topic);
    if (leaders !== undefined && leaders.length > 0) return partitionOf(key, leaders.length);
    return this.#partitionCount(topic).then((count) => partitionOf(key, count));
  }

  /** A topic made a moment ago may not have reached every broker. */
  async #partitionCount(topic: string): Promise<number> {
    const deadline = performance.now() + Math.min(this.#wire.requestTimeoutMs, this.#remainingMs());
    for (;;) {
      const count = (await this.#wire.leaders(topic))?.length ?? 0;
      if (count > 0) return count;
      if (performance.now() > deadline) {
        throw new KafkaError(
          'LOG_TOPIC_MISSING',
          `topic ${topic} does not exist. Create it with admin.ensureTopics().`,
          {
            facts: { topic },
          },
        );
      }
      await wait(50, this.#wire.closing.signal);
      this.#wire.assertOpen();
    }
  }

  async #addPartitions(chunks: readonly Chunk[]): Promise<void> {
    const keys = new Set<string>();
    const fresh = chunks.filter(({ topic, partition }) => {
      const key = `${topic}/${partition}`;
      const isNew = !this.#added.has(key) && !keys.has(key);
      keys.add(key);
      return isNew;
    });
    if (fresh.length === 0) return;
    await this.#coordinate(TRANSACTION, this.#writer.transactionalId, addPartitionsToTxn(this.#producer!, fresh));
    for (const { topic, partition } of fresh) this.#added.add(`${topic}/${partition}`);
  }

  /** Sends the batches until every partition has said that it has its own. */
  async #produce(apiVersion: 9 | 12, batches: readonly EncodedBatch[]): Promise<void> {
    let pending = batches;
    for (let pauseMs = 2; ;) {
      const { led, leaderless } = await this.#leadersOf(pending);
      const failures: Failure[] = leaderless.map((batch) => ({ batch, moved: true, cause: 'no leader' }));
      const answers = await Promise.allSettled(
        [...led].map(([nodeId, ofNode]) => this.#produceTo(nodeId, apiVersion, ofNode)),
      );
      for (const answer of answers) {
        if (answer.status === 'rejected') throw answer.reason;
        failures.push(...answer.value);
      }
      if (failures.length === 0) return;
      pending = failures.map(({ batch }) => batch);
      const { topic, partition } = pending[0]!;
      const last = failures[0]!.cause;
      this.#wire.assertOpen();
      if (this.#remainingMs() <= 0) throw this.#timedOut(unreachable('Produce', `${topic}-${partition}`, last));
      const moved = failures.some((failure) => failure.moved);
      pauseMs = moved ? Math.min(Math.max(pauseMs * 2, 25), 200) : Math.min(pauseMs * 2, 10);
      await wait(pauseMs, this.#wire.closing.signal);
      if (moved) await this.#wire.tryRefresh(pending.map((batch) => batch.topic));
    }
  }

  async #leadersOf(
    batches: readonly EncodedBatch[],
  ): Promise<{ led: Map<number, EncodedBatch[]>; leaderless: EncodedBatch[] }> {
    try {
      return await this.#wire.byLeader(batches);
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      return { led: new Map(), leaderless: [...batches] };
    }
  }

  async #produceTo(nodeId: number, apiVersion: 9 | 12, batches: readonly EncodedBatch[]): Promise<Failure[]> {
    const { transactionalId } = this.#writer;
    let answers: readonly ProducedPartition[];
    try {
      const call = produce(apiVersion, transactionalId, this.#wire.requestTimeoutMs, batches);
      answers = await this.#wire.send(nodeId, call, this.#lane);
    } catch (cause) {
      if (cause instanceof KafkaError) throw cause;
      return batches.map((batch) => ({ batch, moved: true, cause }));
    }
    const failures: Failure[] = [];
    for (const batch of batches) {
      const { topic, partition, bytes } = batch;
      const answer = answers.find((of) => of.topic === topic && of.partition === partition);
      if (answer === undefined) {
        failures.push({ batch, moved: true, cause: 'absent from the answer' });
        continue;
      }
      const { error } = answer;
      if (error === 0 || error === DUPLICATE_SEQUENCE_NUMBER) continue;
      if (error === MESSAGE_TOO_LARGE || error === RECORD_LIST_TOO_LARGE)
        throw tooLarge(topic, partition, bytes.length);
      if (isWriterFenced(error)) throw writerFenced(transactionalId, error, 'Produce');
      const cause = refused('Produce', error, { topic, partition, transactionalId });
      if (!isRetriable(error)) throw cause;
      failures.push({ batch, moved: error !== 51, cause });
    }
    return failures;
  }

  async #commitOffsets({ membership, offsets }: GroupOffsets): Promise<void> {
    const version2 = await this.#wire.hasTransactionVersion2();
    if (!version2) await this.#tail; // one request that adds to the transaction at a time
    if (this.#failure !== undefined) return;
    this.#openedAt ??= performance.now();
    const producer = this.#producer!;
    const { groupId } = membership;
    if (!version2) await this.#coordinate(TRANSACTION, producer.transactionalId, addOffsetsToTxn(producer, groupId));
    await this.#coordinate(GROUP, groupId, txnOffsetCommit(version2 ? 5 : 3, producer, membership, offsets));
  }

  async #coordinate(type: CoordinatorType, key: string, call: Call<Answer>): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#wire.coordinated(type, key, call, this.#lane, { deadlineMs: this.#remainingMs() });
    } catch (cause) {
      throw this.#remainingMs() <= 0 ? this.#timedOut(cause) : cause;
    }
    if (answer.error === 0) return;
    if (isWriterFenced(answer.error)) throw writerFenced(this.#writer.transactionalId, answer.error, call.apiName);
    if (type === GROUP && isMemberFenced(answer.error)) throw memberFenced(key, answer.error);
    throw refused(call.apiName, answer.error, { key });
  }

  #remainingMs(): number {
    const passed = this.#openedAt === undefined ? 0 : performance.now() - this.#openedAt;
    return this.#writer.timeoutMs - passed;
  }

  #timedOut(cause: unknown): KafkaError {
    const { transactionalId, timeoutMs } = this.#writer;
    return new KafkaError(
      'LOG_TRANSACTION_TIMED_OUT',
      `the transaction of ${transactionalId} was not written within ${timeoutMs} ms. It is aborted; run it again.`,
      { retryable: true, cause, facts: { transactionalId, timeoutMs } },
    );
  }
}

interface Failure {
  readonly batch: EncodedBatch;
  /** The leader may be another one: look it up before the next attempt. */
  readonly moved: boolean;
  readonly cause: unknown;
}

/** Requests to send one after the other: each has at most one batch per partition, and a bounded size. */
function rounds(chunks: readonly Chunk[]): Chunk[][] {
  const all: Chunk[][] = [];
  let current: Chunk[] = [];
  let keys = new Set<string>();
  let size = 0;
  for (const chunk of chunks) {
    const key = `${chunk.topic}/${chunk.partition}`;
    if (keys.has(key) || (size > 0 && size + chunk.sizeAtMost > MAX_REQUEST_BYTES)) {
      all.push(current);
      current = [];
      keys = new Set();
      size = 0;
    }
    current.push(chunk);
    keys.add(key);
    size += chunk.sizeAtMost;
  }
  if (current.length > 0) all.push(current);
  return all;
}

function fencedWho(cause: unknown): 'writer' | 'member' | undefined {
  if (!(cause instanceof KafkaError)) return undefined;
  if (cause.code === 'LOG_WRITER_FENCED' || cause.code === 'LOG_WRITER_NOT_READY') return 'writer';
  return cause.code === 'LOG_MEMBER_FENCED' ? 'member' : undefined;
}

function over(): KafkaError {
  return new KafkaError(
    'LOG_TRANSACTION_OVER',
    'the transaction has already been committed or aborted. Begin a new one.',
  );
}

function abortedByOwner(): KafkaError {
  return new KafkaError(
    'LOG_TRANSACTION_ABORTED',
    'the transaction was aborted by its owner. Nothing of it will be seen.',
  );
}

function tooLarge(topic: string, partition: number, bytes: number): KafkaError {
  return new KafkaError(
    'RECORD_TOO_LARGE',
    `a record or batch of ${bytes} bytes for ${topic}-${partition} is above the limit (${MAX_BATCH_BYTES} here, or the topic’s max.message.bytes). ` +
      'Make the record smaller, or store the large part elsewhere and write a reference.',
    { facts: { topic, partition, bytes, limit: MAX_BATCH_BYTES } },
  );
}

function writerFenced(transactionalId: string, error: number, request: string): KafkaError {
  return new KafkaError(
    'LOG_WRITER_FENCED',
    `${transactionalId} was taken by another writer, or its transaction timed out at the broker (${request} answered ${error}). Call fence().`,
    { retryable: true, facts: { transactionalId, request, error } },
  );
}

function memberFenced(groupId: string, error: number): KafkaError {
  return new KafkaError(
    'LOG_MEMBER_FENCED',
    `the offsets of group ${groupId} belong to another generation now (error ${error}). Drop the work; the group hands out partitions anew.`,
    { retryable: true, facts: { groupId, error } },
  );
}

function answerLost(transactionalId: string, cause: unknown): KafkaError {
  return new KafkaError(
    'KAFKA_UNREACHABLE',
    `EndTxn of ${transactionalId} was sent and its answer lost. Call fence(), then read what was committed.`,
    { cause, facts: { transactionalId } },
  );
}
