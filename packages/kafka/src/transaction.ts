import type { Batch, GroupOffsets, LogInput, LogTransaction, Membership, Outcome, OutRecord } from '@headwater/core';
import { batchesOf, rounds } from './batches.js';
import type { Packer } from './codecs.js';
import {
  INVALID_PRODUCER_ID_MAPPING,
  INVALID_TXN_STATE,
  KafkaError,
  isMemberFenced,
  isWriterFenced,
  refused,
} from './kafka.errors.js';
import type { Lane } from './lane.js';
import { choosePartition } from './partition-choice.js';
import { ProducePipeline } from './produce-pipeline.js';
import { encodeBatch, runBatch } from './record-batch.js';
import { GROUP, TRANSACTION, type Answer, type Call, type CoordinatorType } from './requests/call.js';
import type { EncodedBatch } from './requests/produce.js';
import { addOffsetsToTxn, addPartitionsToTxn, endTxn, txnOffsetCommit, type Producer } from './requests/transaction.js';
import type { ProducerEpoch } from './producer-epoch.js';
import type { TransactionalProducer } from './transactional-producer.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';
import { abortedByOwner, answerLost, expired, memberFenced, over, timedOut, writerFenced } from './writer.errors.js';

/** What the producer is after a transaction: not even asked, the same, with the epoch the broker told, or of no use until fenced. */
export type AfterTransaction =
  'untouched' | 'same' | 'unfenced' | { readonly producerId: bigint; readonly epoch: number };

export interface TransactionOwner {
  readonly wire: Wire;
  readonly lane: Lane;
  readonly timeoutMs: number;
  /** Gives the transaction's producer a new epoch, unless another writer took its id. Does nothing for a transaction that was given up. */
  renew(transaction: LogTransaction, deadlineMs: number): Promise<void>;
  /** Tells whether the writer still is the only one although this transaction was fenced; its producers have new epochs then. */
  retake(transaction: LogTransaction, deadlineMs: number): Promise<boolean>;
  /** Called once, before the outcome is told. */
  ended(transaction: LogTransaction, after: AfterTransaction): void;
}

export class KafkaTransaction implements LogTransaction {
  readonly #owner: TransactionOwner;
  readonly #wire: Wire;
  readonly #producer: ProducerEpoch | undefined;
  readonly #transactionalId: string;
  readonly #added = new Set<string>();
  #pipeline: ProducePipeline | undefined;
  #failure: { readonly cause: unknown } | undefined;
  /** The last append that is being sent; the next one waits for it, because sequences must be taken and arrive in order. */
  #sending: Promise<unknown> = Promise.resolve();
  /** Resolves when every append so far has been answered or failed. */
  #answered: Promise<unknown> = Promise.resolve();
  /** When the broker may first have heard of this transaction; undefined: nothing to end there. */
  #openedAt: number | undefined;
  #over = false;

  constructor(owner: TransactionOwner, { transactionalId, current }: TransactionalProducer, failure?: KafkaError) {
    this.#owner = owner;
    this.#wire = owner.wire;
    this.#transactionalId = transactionalId;
    this.#producer = current;
    if (failure !== undefined) this.#failure = { cause: failure };
  }

  append(records: readonly LogInput[]): Promise<void> {
    if (this.#over) return Promise.reject(over());
    const sent = this.#sending.then(() => this.#send(records));
    const appended = sent
      .then((last) => last?.landed)
      .catch((cause: unknown) => {
        this.#failure ??= { cause };
        throw cause;
      });
    this.#sending = sent.catch(() => undefined);
    this.#answered = Promise.allSettled([this.#answered, appended]).then(() => undefined);
    return appended;
  }

  async commit(offsets?: GroupOffsets): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: over() };
    this.#over = true;
    const withOffsets = offsets !== undefined && offsets.offsets.length > 0 && this.#failure === undefined;
    const committing = withOffsets
      ? this.#commitOffsets(offsets).catch((cause: unknown) => void (this.#failure ??= { cause }))
      : undefined;
    await Promise.all([this.#quiet(), committing]);
    if (this.#failure !== undefined) return this.#abort(this.#failure.cause);
    if (this.#openedAt === undefined) {
      this.#owner.ended(this, 'untouched');
      return { outcome: 'committed', appended: [] };
    }
    return this.#end('commit');
  }

  async abort(cause?: unknown): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: over() };
    this.#over = true;
    await this.#quiet();
    return this.#abort(cause ?? this.#failure?.cause ?? abortedByOwner());
  }

  /** Never leave a request in flight: one that arrives after EndTxn would add to a transaction that is over. */
  async #quiet(): Promise<void> {
    await this.#answered;
    await this.#pipeline?.settled();
  }

  async #abort(cause: unknown): Promise<Outcome> {
    const fenced = fencedWho(this.#failure?.cause);
    // Whoever fenced this writer has aborted its transaction: no commit of it was ever asked for.
    if (fenced === 'writer') return this.#fenced(cause);
    if (this.#openedAt === undefined) {
      this.#owner.ended(this, 'untouched');
      return { outcome: 'aborted', cause, ...(fenced && { fenced }) };
    }
    if (isExpired(this.#failure?.cause)) return this.#renewed(cause);
    return this.#end('abort', cause, fenced);
  }

  /** The broker forgot the idle producer id, and this transaction with it: a new id, unless another writer took the transactional id. */
  async #renewed(cause: unknown): Promise<Outcome> {
    try {
      await this.#owner.renew(this, this.#patienceMs());
      this.#owner.ended(this, 'untouched');
      return { outcome: 'aborted', cause };
    } catch {
      this.#owner.ended(this, 'unfenced');
      return { outcome: 'aborted', cause, fenced: 'writer' };
    }
  }

  async #fenced(cause: unknown): Promise<Outcome> {
    const retaken = await this.#owner.retake(this, this.#patienceMs());
    this.#owner.ended(this, retaken ? 'untouched' : 'unfenced');
    return { outcome: 'aborted', cause, ...(!retaken && { fenced: 'writer' }) };
  }

  async #end(how: 'commit' | 'abort', reason?: unknown, fenced?: 'member'): Promise<Outcome> {
    const transactionalId = this.#transactionalId;
    let lost = false;
    try {
      const { version2 } = this.#producer!;
      const call = endTxn(version2 ? 5 : 3, this.#identity(), how);
      // With transaction.version 2 a repeated EndTxn is answered truly, because every transaction has its own epoch. Without it the
      // answer to a repetition could tell of something else.
      const answer = await this.#wire.coordinated(TRANSACTION, transactionalId, call, this.#owner.lane, {
        deadlineMs: this.#patienceMs(),
        onLost: (cause) => {
          lost = true;
          if (!version2) throw answerLost(transactionalId, cause);
        },
      });
      // Taken over, or ended by the broker's time-out. Sure only while no commit of ours can have been done unheard.
      if ((isWriterFenced(answer.error) || answer.error === INVALID_TXN_STATE) && (how === 'abort' || !lost)) {
        return await this.#fenced(reason ?? writerFenced(transactionalId, answer.error, 'EndTxn'));
      }
      if (answer.error !== 0) throw refused('EndTxn', answer.error, { transactionalId });
      // Without transaction.version 2 the sequences of an aborted transaction do not fit any more.
      if (how === 'abort' && !version2) await this.#owner.renew(this, this.#patienceMs());
      this.#owner.ended(this, answer.next ?? 'same');
      return how === 'commit'
        ? { outcome: 'committed', appended: this.#pipeline?.appended ?? [] }
        : { outcome: 'aborted', cause: reason, ...(fenced && { fenced }) };
    } catch (cause) {
      this.#owner.ended(this, 'unfenced');
      return { outcome: 'unknown', cause };
    }
  }

  /** Resolves when the last of the records is on its way: the next append may be encoded while the log takes this one. */
  async #send(records: readonly LogInput[]): Promise<{ readonly landed: Promise<void> } | undefined> {
    if (this.#failure !== undefined) throw this.#failure.cause;
    if (records.length === 0) return undefined;
    const nowMs = Date.now();
    const { version2 } = this.#producer!;
    const packer = await this.#wire.packer();
    const partitionOf = (record: OutRecord) => choosePartition(this.#wire, record, this.#remainingMs());
    const batches = await batchesOf(records, partitionOf, this.#wire.batchLimits);
    this.#openedAt ??= performance.now();
    if (!version2) await this.#addPartitions(batches);
    const pipeline = (this.#pipeline ??= this.#newPipeline(version2 ? 12 : 9));
    let last: { readonly landed: Promise<void> } | undefined;
    for (const round of rounds(batches))
      last = await pipeline.send(round.map((batch) => this.#encode(batch, nowMs, packer)));
    return last;
  }

  #encode({ topic, partition, records, run }: Batch, nowMs: number, packer?: Packer): EncodedBatch {
    const { producerId, epoch } = this.#producer!;
    const count = run?.count ?? records.length;
    const baseSequence = this.#producer!.takeSequence({ topic, partition }, count);
    const producer = { producerId, epoch, baseSequence };
    if (run !== undefined) return { topic, partition, records: count, run, ...runBatch(run, producer, packer) };
    const options = { packer, kind: 'transactional', buffers: this.#wire.buffers } as const;
    return { topic, partition, records: count, from: records, ...encodeBatch(records, producer, nowMs, options) };
  }

  #newPipeline(apiVersion: 9 | 12): ProducePipeline {
    const { wire, lane } = this.#owner;
    const transactionalId = this.#transactionalId;
    return new ProducePipeline(
      { wire, lane, transactionalId, apiVersion },
      () => this.#remainingMs(),
      (cause) => this.#timedOut(cause),
    );
  }

  async #addPartitions(batches: readonly Batch[]): Promise<void> {
    const fresh = new Map(batches.map((batch) => [`${batch.topic}/${batch.partition}`, batch]));
    for (const key of this.#added) fresh.delete(key);
    if (fresh.size === 0) return;
    const call = addPartitionsToTxn(this.#identity(), [...fresh.values()]);
    await this.#coordinate(TRANSACTION, this.#transactionalId, call);
    for (const key of fresh.keys()) this.#added.add(key);
  }

  async #commitOffsets({ membership, offsets }: GroupOffsets): Promise<void> {
    const { version2 } = this.#producer!;
    if (!version2) await this.#quiet(); // one request that adds to the transaction at a time
    if (this.#failure !== undefined) return;
    this.#openedAt ??= performance.now();
    const producer = this.#identity();
    const { groupId, memberId, instanceId } = membership;
    if (!version2) await this.#coordinate(TRANSACTION, producer.transactionalId, addOffsetsToTxn(producer, groupId));
    for (;;) {
      // A member that stays goes from generation to generation while its transactions go on.
      const { generation } = membership;
      const now = { groupId, memberId, generation, ...(instanceId === undefined ? {} : { instanceId }) };
      try {
        return await this.#coordinate(GROUP, groupId, txnOffsetCommit(version2 ? 5 : 3, producer, now, offsets));
      } catch (cause) {
        const fenced = cause instanceof KafkaError && cause.code === 'LOG_MEMBER_FENCED';
        if (!fenced || !(await this.#isRenewed(membership, generation))) throw cause;
      }
    }
  }

  async #isRenewed(membership: Membership, stale: number): Promise<boolean> {
    const over = new AbortController();
    const late = wait(this.#remainingMs(), over.signal).then(() => false);
    const renewed = membership.renewed?.(stale) ?? Promise.resolve(false);
    return Promise.race([renewed, late]).finally(() => over.abort());
  }

  async #coordinate(type: CoordinatorType, key: string, call: Call<Answer>): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#wire.coordinated(type, key, call, this.#owner.lane, { deadlineMs: this.#remainingMs() });
    } catch (cause) {
      // What may heal was tried until the time was over.
      throw cause instanceof KafkaError && !cause.retryable ? cause : this.#timedOut(cause);
    }
    if (answer.error === 0) return;
    const transactionalId = this.#transactionalId;
    if (isWriterFenced(answer.error)) throw writerFenced(transactionalId, answer.error, call.apiName);
    if (answer.error === INVALID_PRODUCER_ID_MAPPING) throw expired(transactionalId);
    if (type === GROUP && isMemberFenced(answer.error)) throw memberFenced(key, answer.error);
    throw refused(call.apiName, answer.error, { key });
  }

  #identity(): Producer {
    const { producerId, epoch } = this.#producer!;
    return { transactionalId: this.#transactionalId, producerId, epoch };
  }

  #remainingMs(): number {
    const passed = this.#openedAt === undefined ? 0 : performance.now() - this.#openedAt;
    return this.#owner.timeoutMs - passed;
  }

  /** For what ends the transaction: time for a second attempt even when the transaction has none left. */
  #patienceMs(): number {
    return Math.max(this.#remainingMs(), 2 * this.#wire.requestTimeoutMs);
  }

  #timedOut(cause: unknown): KafkaError {
    return timedOut(this.#transactionalId, this.#owner.timeoutMs, cause);
  }
}

function isExpired(cause: unknown): boolean {
  return cause instanceof KafkaError && cause.code === 'LOG_WRITER_EXPIRED';
}

function fencedWho(cause: unknown): 'writer' | 'member' | undefined {
  if (!(cause instanceof KafkaError)) return undefined;
  if (cause.code === 'LOG_WRITER_FENCED' || cause.code === 'LOG_WRITER_NOT_READY') return 'writer';
  return cause.code === 'LOG_MEMBER_FENCED' ? 'member' : undefined;
}
