import type { KnownLimits } from '@headwater/core';
import { describeTopics } from './requests/admin.js';
import type { Call } from './requests/call.js';

/** A batch above either is refused: the broker does not split it. */
const SETTINGS = ['max.message.bytes', 'segment.bytes'] as const;

/**
 * What topics take as one batch, as far as refusals have taught it. A limit only goes down: where a topic's limit was raised since, its
 * batches stay smaller than they could be until the log is opened anew.
 */
export class BatchLimits implements KnownLimits {
  readonly #ask: <T>(call: Call<T>) => Promise<T>;
  readonly #learnt = new Map<string, number>();
  readonly #asked = new Map<string, Promise<number | undefined>>();

  constructor(ask: <T>(call: Call<T>) => Promise<T>) {
    this.#ask = ask;
  }

  /** undefined: no batch of the topic was refused so far. */
  of(topic: string): number | undefined {
    return this.#learnt.get(topic);
  }

  /**
   * A batch of several records and so many bytes, before compression, was refused for its size. Resolves with the limit from now on, always
   * below those bytes: what the topic says, or half of them where that cannot be read or is no less. Never rejects.
   */
  async learn(topic: string, refusedBytes: number): Promise<number> {
    const known = this.#learnt.get(topic);
    // It was cut before the limit was known.
    if (known !== undefined && known < refusedBytes) return known;
    const told = await this.#told(topic);
    const limit = told !== undefined && told < refusedBytes ? told : Math.floor(refusedBytes / 2);
    const least = Math.min(limit, this.#learnt.get(topic) ?? Infinity);
    this.#learnt.set(topic, least);
    return least;
  }

  /** Asks once for all batches that were refused together. */
  #told(topic: string): Promise<number | undefined> {
    let asked = this.#asked.get(topic);
    if (asked === undefined) {
      asked = this.#described(topic).finally(() => this.#asked.delete(topic));
      this.#asked.set(topic, asked);
    }
    return asked;
  }

  async #described(topic: string): Promise<number | undefined> {
    try {
      const [found] = await this.#ask(describeTopics([{ topic, names: SETTINGS }]));
      if (found?.error !== 0) return undefined;
      const limits = SETTINGS.map((name) => Number(found.settings.get(name) ?? Infinity)).filter((limit) => limit > 0);
      return limits.length > 0 ? Math.min(...limits) : undefined;
    } catch {
      // Not allowed, not reachable, or closing: what was refused tells enough, and whatever else is wrong comes up with the next request.
      return undefined;
    }
  }
}
