import type { Batch, KnownLimits, PartitionOffset, TopicPartition } from '@headwater/core';
import { recut } from './batches.js';
import { KafkaError } from './kafka.errors.js';
import { inOrder } from './produce-pipeline.js';

/** How a part of a send went that is not in the log for sure: `refused` is not in it, `unknown` may be. */
export type Loss = 'refused' | 'unknown';

/** The records of one send that go to one partition, or a batch of them. */
export interface Part extends Batch {
  readonly send: PendingSend;
  /** When it was queued, and when waiting for it ends: milliseconds of the monotonic clock. */
  readonly queuedAt: number;
  readonly deadline: number;
  /** Goes in a batch of its own: together with others it was refused, for one of their records. */
  readonly alone?: true;
}

/** One call of send(): settled when all its parts are. */
export class PendingSend {
  readonly settled: Promise<readonly PartitionOffset[]>;
  readonly #positions = new Map<string, PartitionOffset>();
  readonly #losses: { readonly loss: Loss; readonly at: TopicPartition; readonly cause: unknown }[] = [];
  #left: number;
  #resolve!: (positions: readonly PartitionOffset[]) => void;
  #reject!: (error: KafkaError) => void;

  constructor(parts: number) {
    this.#left = parts;
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** The part in smaller pieces, each of which is settled for itself. */
  cut(part: Part, limits: KnownLimits): Part[] {
    const pieces = recut(part, limits).map((batch) => ({ ...part, ...batch }));
    this.#left += pieces.length - 1;
    return pieces;
  }

  landed({ topic, partition }: TopicPartition, next: number): void {
    this.#positions.set(`${topic}/${partition}`, { topic, partition, next });
    this.#settle();
  }

  lost(loss: Loss, { topic, partition }: TopicPartition, cause: unknown): void {
    this.#losses.push({ loss, at: { topic, partition }, cause });
    this.#settle();
  }

  #settle(): void {
    if (--this.#left > 0) return;
    if (this.#losses.length === 0) this.#resolve(inOrder(this.#positions.values()));
    else this.#reject(this.#failure());
  }

  #failure(): KafkaError {
    const unknown: TopicPartition[] = [];
    const refused: TopicPartition[] = [];
    for (const [name, at] of new Map(this.#losses.map(({ at }) => [`${at.topic}/${at.partition}`, at]))) {
      // Of several batches some may be in the log: sending them all again would double those.
      const partly = this.#positions.has(name) || this.#losses.some((of) => of.loss === 'unknown' && is(of.at, at));
      (partly ? unknown : refused).push(at);
    }
    const { cause } = this.#losses[0]!;
    const named = (what: string, all: readonly TopicPartition[]) =>
      all.length > 0
        ? `${what} on ${all.map(({ topic, partition }) => `${topic}-${partition}`).join(', ')}`
        : undefined;
    const told = [named('unknown', unknown), named('refused', refused)].filter((text) => text !== undefined).join('; ');
    return new KafkaError(
      'LOG_SEND_FAILED',
      `records are ${told}; every other partition of this send has its own. ` +
        (unknown.length > 0
          ? 'Sending unknown ones again may double them: read what is in the log first.'
          : 'Send the refused ones again when the cause is removed.'),
      {
        cause,
        // Doubling is the caller's decision, never an automatic one.
        retryable:
          unknown.length === 0 && this.#losses.every((one) => one.cause instanceof KafkaError && one.cause.retryable),
        facts: { unknown, refused },
      },
    );
  }
}

function is(one: TopicPartition, { topic, partition }: TopicPartition): boolean {
  return one.topic === topic && one.partition === partition;
}
