import { errorCode, HeadwaterError } from '@headwater/core';
import { CaptureError } from '../cdc.errors.js';
import type { TopicLimits } from '../topic-limits.js';

/** What the log has refused below the limits that it tells: those were lowered meanwhile, or something in between takes less. */
export class LearnedLimits {
  readonly #bytes = new Map<string, number>();

  /** A refused record is worth another try when it will be parked then: what to take the error for. */
  learn(error: unknown): unknown {
    if (errorCode(error) !== 'CDC_RECORD_REFUSED' || !(error instanceof HeadwaterError)) return error;
    const { topic, bytes } = error.facts;
    if (typeof topic !== 'string' || typeof bytes !== 'number' || this.#bytes.get(topic) === bytes) return error;
    this.#bytes.set(topic, bytes);
    const message = `${error.message} Capture reads its position, and parks the record.`;
    return new CaptureError('CDC_PUBLISH_FAILED', message, error.facts, error);
  }

  apply(found: ReadonlyMap<string, TopicLimits>): ReadonlyMap<string, TopicLimits> {
    const least = (topic: string, told: number) => Math.min(told, this.#bytes.get(topic) ?? Infinity);
    return new Map([...found].map(([topic, of]) => [topic, { ...of, maxBatchBytes: least(topic, of.maxBatchBytes) }]));
  }

  /** The topic may take more by now. */
  forget(topic: string): void {
    this.#bytes.delete(topic);
  }
}
