import type { PartitionOffset } from '@headwater/core';
import { OUT_OF_ORDER_SEQUENCE_NUMBER } from './kafka.errors.js';
import { pauseAfter, produceOnce, type Attempt, type Sender } from './produce.js';
import type { EncodedBatch } from './requests/produce.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

/** A broker knows the last five batches of a producer on a partition: with more unanswered, a repetition would not be recognised. */
const MAX_IN_FLIGHT = 5;

export interface PipelineSender extends Sender {
  readonly wire: Pick<
    Wire,
    'byLeader' | 'send' | 'requestTimeoutMs' | 'buffers' | 'batchLimits' | 'tryRefresh' | 'assertOpen' | 'closing'
  >;
}

/**
 * The batches of one transaction on their way. Several requests may be unanswered at once; what they bring is judged in the order in which
 * they were sent, and repeated in that order, so that sequences arrive in order whatever is lost.
 */
export class ProducePipeline {
  readonly #sender: PipelineSender;
  readonly #remainingMs: () => number;
  readonly #timedOut: (cause: unknown) => unknown;
  readonly #flying: Promise<void>[] = [];
  readonly #positions = new Map<string, PartitionOffset>();
  #last: Promise<void> = Promise.resolve();

  constructor(sender: PipelineSender, remainingMs: () => number, timedOut: (cause: unknown) => unknown) {
    this.#sender = sender;
    this.#remainingMs = remainingMs;
    this.#timedOut = timedOut;
  }

  /** Where each partition stands after the last batch it took, by topic and partition. */
  get appended(): readonly PartitionOffset[] {
    return inOrder(this.#positions.values());
  }

  /**
   * Sends when there is room, one call at a time; at most one batch per partition. The promise inside resolves when every partition has its
   * batch and all sent before; it rejects when one is refused or time is over, as do all sent after it.
   */
  async send(batches: readonly EncodedBatch[]): Promise<{ readonly landed: Promise<void> }> {
    // The first batch on a partition goes alone: until it is in, the broker may refuse what follows for reasons that pass.
    const first = batches.some((batch) => !this.#positions.has(keyOf(batch)));
    while (this.#flying.length >= (first ? 1 : MAX_IN_FLIGHT)) await this.#flying[0];
    const alone = this.#flying.length === 0;
    const landed = this.#land(produceOnce(this.#sender, batches), this.#last, alone);
    this.#last = landed;
    this.#flying.push(landed);
    // Whoever waits for it learns of a failure; here it only makes room.
    void landed.catch(() => undefined).then(() => this.#flying.splice(this.#flying.indexOf(landed), 1));
    if (first) await landed;
    return { landed };
  }

  /** Resolves when no request is in the air any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#flying);
  }

  async #land(attempt: Promise<Attempt[]>, before: Promise<void>, alone: boolean): Promise<void> {
    const [attempted, preceding] = await Promise.allSettled([attempt, before]);
    if (preceding.status === 'rejected') throw preceding.reason;
    if (attempted.status === 'rejected') throw attempted.reason;
    let pending = this.#judge(attempted.value, { overtaken: !alone });
    for (let pauseMs = 2; pending.length > 0;) {
      const { wire } = this.#sender;
      wire.assertOpen();
      const { batch, cause } = pending[0]!;
      if (this.#remainingMs() <= 0)
        throw this.#timedOut(unreachable('Produce', `${batch.topic}-${batch.partition}`, cause));
      const moved = pending.some((one) => one.moved);
      pauseMs = pauseAfter(pauseMs, { moved });
      await wait(pauseMs, wire.closing.signal);
      if (moved) await wire.tryRefresh(pending.map((one) => one.batch.topic));
      pending = this.#judge(
        await produceOnce(
          this.#sender,
          pending.map((one) => one.batch),
        ),
        { overtaken: false },
      );
    }
  }

  /** What has to be sent again. `overtaken`: an earlier batch may have been missing when these arrived. */
  #judge(attempts: readonly Attempt[], { overtaken }: { readonly overtaken: boolean }): Repetition[] {
    const pending: Repetition[] = [];
    for (const attempt of attempts) {
      const { batch, result } = attempt;
      if (result === 'appended') this.#positions.set(keyOf(batch), positionAfter(batch, attempt.baseOffset));
      else if (result === 'again') pending.push(attempt);
      else if (overtaken && attempt.error === OUT_OF_ORDER_SEQUENCE_NUMBER)
        pending.push({ batch, cause: attempt.cause, moved: false });
      else throw attempt.cause;
    }
    return pending;
  }
}

interface Repetition {
  readonly batch: EncodedBatch;
  readonly cause: unknown;
  readonly moved: boolean;
}

export function inOrder(positions: Iterable<PartitionOffset>): PartitionOffset[] {
  return [...positions].sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1));
}

function positionAfter({ topic, partition, records }: EncodedBatch, baseOffset: number): PartitionOffset {
  return { topic, partition, next: baseOffset + records };
}

function keyOf({ topic, partition }: EncodedBatch): string {
  return `${topic}/${partition}`;
}
