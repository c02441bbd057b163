import type { FetchedBatch, LogReader } from '@headwater/core';
import { decodeFetched } from './fetched.js';
import { CORRUPT_MESSAGE, KafkaError, OFFSET_OUT_OF_RANGE, isRetriable, refused } from './kafka.errors.js';
import { closedError, type Lane } from './lane.js';
import {
  EARLIEST,
  LATEST,
  fetch,
  listOffsets,
  type FetchPartition,
  type FetchedPartition,
  type FetchLimits,
} from './requests/fetch.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

export interface ReaderLimits {
  /** All partitions of one fetch together. */
  readonly maxBytes: number;
  readonly partitionMaxBytes: number;
}

/** Small on purpose: the records of a larger answer outlive V8's young generation, which tripled the CPU per record (16 MB against 2 MB). */
const LIMITS: ReaderLimits = { maxBytes: 2 << 20, partitionMaxBytes: 1 << 20 };
const DEFAULT_MAX_WAIT_MS = 250;
/** How much later than asked a broker's answer may come before poll returns without it. */
const GRACE_MS = 100;

/** One fetch on its way to one leader. It outlives the poll that began it, so a slow leader holds back nobody. */
interface Flight {
  readonly nodeId: number;
  readonly asked: ReadonlyMap<string, FetchPartition>;
  landing: Promise<void>;
  partitions?: readonly FetchedPartition[];
  /** The leader did not answer, or a partition has moved away. */
  lost?: unknown;
}

type Position = FetchPartition;

export class KafkaReader implements LogReader {
  readonly #wire: Wire;
  readonly #lane: Lane;
  readonly #limits: ReaderLimits;
  readonly #positions = new Map<string, Position>();
  readonly #flights = new Map<number, Flight>();
  readonly #closing = new AbortController();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;

  constructor(wire: Wire, limits: ReaderLimits = LIMITS) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#lane = wire.lane();
    this.#limits = limits;
  }

  seek(topic: string, partition: number, offset: number): void {
    this.#positions.set(`${topic}/${partition}`, { topic, partition, offset });
  }

  drop(topic: string, partition: number): void {
    this.#positions.delete(`${topic}/${partition}`);
  }

  async poll(
    options: { readonly maxWaitMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<readonly FetchedBatch[]> {
    const maxWaitMs = options.maxWaitMs ?? DEFAULT_MAX_WAIT_MS;
    const { signal } = options;
    const deadline = performance.now() + maxWaitMs;
    for (;;) {
      if (this.#closing.signal.aborted || this.#wire.closing.signal.aborted) throw closedError();
      if (signal?.aborted) return [];
      const leftMs = Math.max(0, deadline - performance.now());
      const launched = await this.#launch(Math.ceil(leftMs));
      if (this.#flights.size > 0) await this.#landing(leftMs + GRACE_MS, signal);
      if (signal?.aborted) {
        // The broker would hold the fetch for the rest of its wait, and the next poll behind it.
        this.#lane.cut();
        this.#flights.clear();
        return [];
      }
      const landed = [...this.#flights.values()].filter(
        (flight) => flight.partitions !== undefined || flight.lost !== undefined,
      );
      const batches = await this.#unload(landed);
      if (batches.length > 0 || performance.now() >= deadline) return batches;
      const failed = landed.some(({ lost }) => lost !== undefined) || launched === 'incomplete';
      if (failed || this.#positions.size === 0) {
        const pauseMs = failed ? Math.min(50, deadline - performance.now()) : deadline - performance.now();
        await wait(pauseMs, signal, this.#closing.signal, this.#wire.closing.signal);
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#wire.dismiss(this.#stoppable);
    this.#flights.clear();
    await this.#wire.release(this.#lane);
  }

  /** Sends a fetch to every leader that has none on its way. */
  async #launch(maxWaitMs: number): Promise<'complete' | 'incomplete'> {
    const positions = [...this.#positions.values()];
    if (positions.length === 0) return 'complete';
    let byLeader: Awaited<ReturnType<Wire['byLeader']>>;
    try {
      byLeader = await this.#wire.byLeader(positions);
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      return 'incomplete';
    }
    for (const [nodeId, asked] of byLeader.led) {
      if (!this.#flights.has(nodeId)) this.#flights.set(nodeId, this.#fetch(nodeId, asked as Position[], maxWaitMs));
    }
    if (byLeader.leaderless.length === 0) return 'complete';
    await this.#wire.tryRefresh(byLeader.leaderless.map(({ topic }) => topic));
    return 'incomplete';
  }

  #fetch(nodeId: number, asked: readonly Position[], maxWaitMs: number): Flight {
    const limits: FetchLimits = { ...this.#limits, maxWaitMs };
    const flight: Flight = {
      nodeId,
      asked: new Map(asked.map((position) => [`${position.topic}/${position.partition}`, position])),
      landing: Promise.resolve(),
    };
    flight.landing = this.#wire.send(nodeId, fetch(asked, limits, this.#wire.requestTimeoutMs), this.#lane).then(
      (answer) => {
        if (answer.error === 0) flight.partitions = answer.partitions;
        else flight.lost = refused('Fetch', answer.error);
      },
      (error: unknown) => {
        flight.lost = error;
      },
    );
    return flight;
  }

  /** Resolves when a flight brought something, when all have landed, or when the time is over. */
  async #landing(ms: number, signal?: AbortSignal): Promise<void> {
    const over = new AbortController();
    const flights = [...this.#flights.values()];
    const useful = flights.map(
      (flight) =>
        new Promise<void>((resolve) => {
          void flight.landing.then(() => {
            if (flight.lost !== undefined || flight.partitions?.some((of) => of.error !== 0 || of.bytes.length > 0))
              resolve();
          });
        }),
    );
    const all = Promise.all(flights.map(({ landing }) => landing));
    await Promise.race([...useful, all, wait(ms, over.signal, signal, this.#closing.signal)]);
    over.abort();
  }

  /** Decodes everything before it moves any position: an error must lose nothing that came with it. */
  async #unload(landed: readonly Flight[]): Promise<FetchedBatch[]> {
    const batches: FetchedBatch[] = [];
    const moved = new Set<string>();
    for (const flight of landed) {
      this.#flights.delete(flight.nodeId);
      if (flight.lost instanceof KafkaError && !flight.lost.retryable) throw flight.lost;
      if (flight.lost !== undefined) for (const { topic } of flight.asked.values()) moved.add(topic);
      for (const fetched of flight.partitions ?? []) {
        const key = `${fetched.topic}/${fetched.partition}`;
        const position = this.#positions.get(key);
        // Sought anew or dropped since the fetch was sent.
        if (position === undefined || position !== flight.asked.get(key)) continue;
        if (fetched.error !== 0) {
          await this.#failed(fetched, position);
          moved.add(fetched.topic);
          flight.lost ??= refused('Fetch', fetched.error, { topic: fetched.topic, partition: fetched.partition });
          continue;
        }
        const { topic, partition, bytes, lastStableOffset, highWatermark } = fetched;
        const from = position.offset;
        const { aborted } = fetched;
        const before = lastStableOffset;
        const { records, nextOffset } = decodeFetched({ topic, partition, from, before, bytes, aborted });
        if (nextOffset > from)
          batches.push({ topic, partition, from, records, nextOffset, lastStableOffset, highWatermark });
      }
    }
    if (moved.size > 0) await this.#wire.tryRefresh([...moved]);
    return batches.filter((batch) => this.#advance(batch));
  }

  /** To the end of the order, too: the broker fills a fetch in the order asked. */
  #advance({ topic, partition, from, nextOffset }: FetchedBatch): boolean {
    const key = `${topic}/${partition}`;
    if (this.#positions.get(key)?.offset !== from) return false;
    this.#positions.delete(key);
    this.#positions.set(key, { topic, partition, offset: nextOffset });
    return true;
  }

  async #failed({ topic, partition, error }: FetchedPartition, { offset }: Position): Promise<void> {
    if (isRetriable(error)) return;
    if (error === CORRUPT_MESSAGE) {
      throw new KafkaError(
        'LOG_CORRUPT',
        `${topic}-${partition} at offset ${offset}: the broker found a corrupt batch. Read from another replica or restore the topic.`,
        { facts: { topic, partition, offset } },
      );
    }
    if (error !== OFFSET_OUT_OF_RANGE) throw refused('Fetch', error, { topic, partition, offset });
    const range = await this.#range(topic, partition);
    // A new leader may lag for a moment; an offset inside the range is asked for again.
    if (range === undefined || (offset >= range.start && offset <= range.high)) return;
    const side = offset < range.start ? 'was removed from the log' : 'is not yet in the log';
    throw new KafkaError(
      'LOG_OFFSET_OUT_OF_RANGE',
      `${topic}-${partition}: offset ${offset} ${side}, which holds ${range.start} to ${range.high}. ` +
        'Rebuild what is read from it, or seek into the range.',
      { facts: { topic, partition, offset, ...range } },
    );
  }

  async #range(topic: string, partition: number): Promise<{ start: number; high: number } | undefined> {
    const leader = (await this.#wire.leaders(topic))?.[partition] ?? -1;
    if (leader < 0) return undefined;
    try {
      const wanted = [{ topic, partition }];
      const [start] = await this.#wire.send(leader, listOffsets(wanted, EARLIEST, 'all'));
      const [high] = await this.#wire.send(leader, listOffsets(wanted, LATEST, 'all'));
      if (start?.error !== 0 || high?.error !== 0) return undefined;
      return { start: start.offset, high: high.offset };
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      return undefined;
    }
  }
}
