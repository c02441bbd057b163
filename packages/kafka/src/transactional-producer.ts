import type { TopicPartition } from '@headwater/core';
import { refused } from './kafka.errors.js';
import type { Lane } from './lane.js';
import { sequenceAfter } from './record-batch.js';
import { TRANSACTION } from './requests/call.js';
import { initProducerId, type Producer } from './requests/transaction.js';
import type { Wire } from './wire.js';

/** A producer id in one epoch. What was begun under it stays under it, even when another epoch has been taken since. */
export class ProducerEpoch implements Producer {
  readonly transactionalId: string;
  readonly producerId: bigint;
  readonly epoch: number;
  readonly #sequences = new Map<string, number>();

  constructor({ transactionalId, producerId, epoch }: Producer) {
    this.transactionalId = transactionalId;
    this.producerId = producerId;
    this.epoch = epoch;
  }

  /** Takes the sequence of the next batch on that partition; the first of an epoch is 0. */
  takeSequence({ topic, partition }: TopicPartition, records: number): number {
    const key = `${topic}/${partition}`;
    const sequence = this.#sequences.get(key) ?? 0;
    this.#sequences.set(key, sequenceAfter(sequence, records));
    return sequence;
  }
}

/** One transactional id at the broker, and the epoch it has there as far as is known. */
export class TransactionalProducer {
  readonly transactionalId: string;
  #current: ProducerEpoch | undefined;

  constructor(transactionalId: string) {
    this.transactionalId = transactionalId;
  }

  /** undefined: to be initialised first. */
  get current(): ProducerEpoch | undefined {
    return this.#current;
  }

  /**
   * Takes a new epoch and resolves when the transaction before is over, its markers included. `anyway` fences every other writer;
   * `unless-taken` is refused when another writer took the id since.
   */
  async initialise(
    how: 'anyway' | 'unless-taken',
    at: { readonly wire: Wire; readonly lane: Lane; readonly timeoutMs: number; readonly deadlineMs: number },
  ): Promise<void> {
    const { transactionalId } = this;
    const call = initProducerId(transactionalId, at.timeoutMs, how === 'unless-taken' ? this.#current : undefined);
    const answer = await at.wire.coordinated(TRANSACTION, transactionalId, call, at.lane, at);
    if (answer.error !== 0) throw refused('InitProducerId', answer.error, { transactionalId });
    this.becomes(answer);
  }

  becomes({ producerId, epoch }: { readonly producerId: bigint; readonly epoch: number }): void {
    this.#current = new ProducerEpoch({ transactionalId: this.transactionalId, producerId, epoch });
  }

  forget(): void {
    this.#current = undefined;
  }
}
