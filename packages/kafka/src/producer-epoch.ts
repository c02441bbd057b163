import type { TopicPartition } from '@headwater/core';
import { sequenceAfter } from './record-batch.js';

/** A producer id in one epoch. What was begun under it stays under it, even when another epoch has been taken since. */
export class ProducerEpoch {
  readonly producerId: bigint;
  readonly epoch: number;
  /**
   * Its transactions go by transaction.version 2 (KIP-890): producing and committing offsets add to them by themselves, and each has an epoch of
   * its own. A transaction ends by the version in which it began.
   */
  readonly version2: boolean;
  readonly #sequences = new Map<string, number>();

  constructor({ producerId, epoch }: { readonly producerId: bigint; readonly epoch: number }, version2 = false) {
    this.producerId = producerId;
    this.epoch = epoch;
    this.version2 = version2;
  }

  /** Takes the sequence of the next batch on that partition; the first of an epoch is 0. */
  takeSequence({ topic, partition }: TopicPartition, records: number): number {
    const key = `${topic}/${partition}`;
    const sequence = this.#sequences.get(key) ?? 0;
    this.#sequences.set(key, sequenceAfter(sequence, records));
    return sequence;
  }
}
