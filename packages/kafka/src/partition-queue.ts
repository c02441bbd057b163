import { fillTo, type KnownLimits, type TopicPartition } from '@headwater/core';
import type { Part } from './pending-send.js';
import type { ProducerEpoch } from './producer-epoch.js';

/** What waits for one partition, in the order of the calls. At most one batch of it is on its way: that keeps the order whatever is lost. */
export class PartitionQueue implements TopicPartition {
  readonly topic: string;
  readonly partition: number;
  /** Under which its next batch goes; undefined: under a new one, because the sequences of the former are in doubt. */
  epoch: ProducerEpoch | undefined;
  busy = false;
  readonly #limits: KnownLimits;
  #waiting: Part[] = [];
  #bytes = 0;

  constructor({ topic, partition }: TopicPartition, limits: KnownLimits) {
    this.#limits = limits;
    this.topic = topic;
    this.partition = partition;
  }

  get empty(): boolean {
    return this.#waiting.length === 0;
  }

  add(part: Part): void {
    this.#waiting.push(part);
    this.#bytes += part.sizeAtMost;
  }

  /** Parts that were taken and are not in the log, before all that wait. */
  putBack(parts: readonly Part[]): void {
    this.#waiting.unshift(...parts);
    for (const { sizeAtMost } of parts) this.#bytes += sizeAtMost;
  }

  /** Milliseconds until a batch should go: 0 when it is full or its first part has waited for `lingerMs`. */
  dueIn(lingerMs: number, nowMs: number): number {
    const first = this.#waiting[0];
    if (first === undefined) return Infinity;
    return this.#bytes >= fillTo(this.#limits, this.topic) ? 0 : Math.max(0, first.queuedAt + lingerMs - nowMs);
  }

  /** Takes as many parts as one batch holds, at least one. */
  take(): Part[] {
    const most = fillTo(this.#limits, this.topic);
    let bytes = 0;
    let count = 0;
    for (const { sizeAtMost, alone } of this.#waiting) {
      if (count > 0 && (alone || bytes + sizeAtMost > most)) break;
      bytes += sizeAtMost;
      count++;
      if (alone) break;
    }
    this.#bytes -= bytes;
    return this.#waiting.splice(0, count);
  }

  /** Takes the parts at the front whose time is over. */
  takeExpired(nowMs: number): Part[] {
    let count = 0;
    while (count < this.#waiting.length && this.#waiting[count]!.deadline <= nowMs) count++;
    const expired = this.#waiting.splice(0, count);
    for (const { sizeAtMost } of expired) this.#bytes -= sizeAtMost;
    return expired;
  }
}
