import type { TopicPartition } from '@headwater/core';
import { sequenceAfter } from './record-batch.js';

/** A producer id in one epoch. What was begun under it stays under it, even when another epoch has been taken since. */
export class ProducerEpoch {
  readonly producerId: bigint;
  readonly epoch: number;
  readonly #sequences = new Map<string, number>();

  constructor({ producerId, epoch }: { readonly producerId: bigint; readonly epoch: number }) {
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
