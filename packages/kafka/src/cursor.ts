import type { FetchedBatch, TopicPartition } from '@headwater/core';
import { FetchedRecords, endOfBatches } from './fetched.js';
import type { FetchedPartition } from './requests/fetch.js';

/** What one fetch brought, as far as it is not handed out. */
interface Piece {
  readonly fetched: FetchedPartition;
  readonly records: FetchedRecords;
  /** Where the fetch behind it begins. */
  readonly end: number;
}

/**
 * One partition that is read: how far it was handed out, and what has come of it from there on, without a gap. Who seeks another place gets another cursor: what comes for this one is
 * never taken for that one's. Decides nothing about time and connections.
 */
export class Cursor implements TopicPartition {
  readonly topic: string;
  readonly partition: number;
  /** Learned by the first fetch and kept: these offsets belong to no other topic of that name. */
  topicId: string | undefined;
  /** Nothing is asked for or handed out; what has come is kept. */
  isPaused = false;
  /** Told by the poll that comes to it, behind all that stands before it; nothing is asked for until then. */
  fault: unknown;
  /** Its leader is to be looked for: the known one refused, or did not answer. */
  isStray = false;
  /** Nothing is asked for before then, by `performance.now()`. */
  restsUntil = -Infinity;
  /** Since when the brokers do not know its topic. */
  missingSince: number | undefined;
  #offset: number;
  #pieces: Piece[] = [];
  /** The last stable offset as the last fetch told it. */
  #lastStable = Infinity;

  constructor(topic: string, partition: number, offset: number) {
    this.topic = topic;
    this.partition = partition;
    this.#offset = offset;
  }

  /** Where the next fetch begins: behind all that has come. */
  get end(): number {
    return this.#pieces.at(-1)?.end ?? this.#offset;
  }

  /** No fetch has told anything of it. */
  get isFresh(): boolean {
    return this.#lastStable === Infinity;
  }

  /** Behind all that has come there was more, when a fetch last told. */
  get hasMore(): boolean {
    return this.end < this.#lastStable;
  }

  get isDrained(): boolean {
    return this.#pieces.length === 0;
  }

  /** A poll has something to do for it. */
  get isReady(): boolean {
    return !this.isPaused && (!this.isDrained || this.fault !== undefined);
  }

  /** As they were fetched: not unpacked. */
  get waitingBytes(): number {
    return this.#pieces.reduce((sum, { records }) => sum + records.leftBytes, 0);
  }

  /** What its pieces are views of. */
  get memory(): readonly ArrayBufferLike[] {
    return this.#pieces.map(({ fetched }) => fetched.bytes.buffer);
  }

  /** Takes what a fetch from `offset` on brought, unless it began somewhere else. */
  land(offset: number, fetched: FetchedPartition): void {
    if (offset !== this.end) return;
    const { bytes, lastStableOffset } = fetched;
    this.#lastStable = lastStableOffset;
    if (bytes.length === 0) return;
    const records = new FetchedRecords({ ...fetched, from: offset, before: lastStableOffset });
    this.#pieces.push({ fetched, records, end: endOfBatches(bytes, offset, lastStableOffset) });
  }

  /** Hands out the next batches, up to the one that fills `maxBytes`, as far as one fetch brought them; undefined: it moved over nothing. */
  take(maxBytes: number): { readonly batch: FetchedBatch | undefined; readonly unpackedBytes: number } {
    const { fetched, records: left, end } = this.#pieces[0]!;
    const { topic, partition } = this;
    const from = this.#offset;
    try {
      const { records, unpackedBytes } = left.read(maxBytes);
      this.#offset = left.nextOffset;
      if (left.done) this.#pieces.shift();
      // By their headers alone they reached farther than they do.
      if (left.done && this.#offset !== end) this.forget();
      const { lastStableOffset, highWatermark } = fetched;
      const batch = { topic, partition, from, records, nextOffset: this.#offset, lastStableOffset, highWatermark };
      return { batch: this.#offset === from ? undefined : batch, unpackedBytes };
    } catch (error) {
      this.forget();
      this.fault = error;
      return { batch: undefined, unpackedBytes: 0 };
    }
  }

  /** What is not handed out will be fetched again. */
  forget(): void {
    this.#pieces = [];
    this.#lastStable = Infinity;
    this.fault = undefined;
  }
}
