import type { FetchedBatch, LogReader, TopicPartition } from '@headwater/core';
import { keepFreedMemory } from './freed-memory.js';
import { decodeFetched, endOfBatches } from './fetched.js';
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

/** `maxBytes` of unpacked batches end a poll; a batch is never cut, so the one that fills it may reach beyond. */
export interface ReaderLimits {
  readonly maxBytes: number;
}

/** At most so much of one partition per fetch, so that one with a long backlog leaves room for others. */
const PARTITION_SHARE = 2;
/** How long a topic that was read may be unknown to the brokers before it counts as deleted: some are late after a restart. */
const MISSING_PATIENCE_MS = 1_000;
const DEFAULT_MAX_WAIT_MS = 250;
/** How much later than asked a broker's answer may come before poll returns without it. */
const GRACE_MS = 100;

/** One fetch on its way to one leader. It outlives the poll that began it, so that a slow leader holds back nobody; what was sought or dropped meanwhile is passed by. */
interface Flight {
  readonly nodeId: number;
  readonly asked: ReadonlyMap<string, FetchPartition>;
  readonly limits: FetchLimits;
  landing: Promise<void>;
  partitions?: readonly FetchedPartition[];
  /** The leader did not answer, or a partition has moved away. */
  lost?: unknown;
}

/** The topic's id is learned by the first fetch and kept: these offsets belong to no other topic of that name. */
type Position = TopicPartition & { readonly offset: number; readonly topicId?: string };

export class KafkaReader implements LogReader {
  readonly #wire: Wire;
  readonly #lane: Lane;
  readonly #limits: ReaderLimits;
  readonly #positions = new Map<string, Position>();
  readonly #flights = new Map<number, Flight>();
  readonly #closing = new AbortController();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;

  readonly #missingSince = new Map<string, number>();
  /** How many unpacked bytes came of one fetched byte: what would be thrown away is not asked for. */
  #expansion = 1;

  constructor(wire: Wire, limits: ReaderLimits) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#lane = wire.lane();
    this.#limits = limits;
    keepFreedMemory();
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
    let byLeader: { led: Map<number, Position[]>; leaderless: Position[] };
    try {
      byLeader = await this.#wire.byLeader(positions);
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      return 'incomplete';
    }
    const share = this.#limits.maxBytes / this.#expansion / Math.max(1, byLeader.led.size);
    for (const [nodeId, positions] of byLeader.led) {
      if (this.#flights.has(nodeId)) continue;
      const asked = positions.map((position) => this.#identified(position));
      this.#fetch(nodeId, asked, { maxWaitMs, ...limitsOf(share) });
    }
    if (byLeader.leaderless.length === 0) return 'complete';
    await this.#wire.tryRefresh(byLeader.leaderless.map(({ topic }) => topic));
    for (const position of byLeader.leaderless) this.#stillThere(position);
    return 'incomplete';
  }

  /** The position under the id of its topic, and for the leader that is known. */
  #identified(position: Position): FetchPartition {
    const { topic, partition, topicId } = position;
    const leaderEpoch = this.#wire.knownLeaderEpoch(position) ?? -1;
    const found = this.#wire.knownTopicId(topic) ?? '';
    this.#missingSince.delete(topic);
    if (topicId === found) return { ...position, topicId, leaderEpoch };
    if (topicId !== undefined) {
      throw new KafkaError(
        'LOG_TOPIC_RECREATED',
        `topic ${topic} was deleted and made again (id ${topicId}, now ${found}): offset ${position.offset} of partition ${partition} is not of this one. ` +
          'Rebuild what is read from it, then seek to its start.',
        { facts: { topic, partition, offset: position.offset, wanted: topicId, found } },
      );
    }
    const identified = { ...position, topicId: found };
    this.#positions.set(`${topic}/${partition}`, identified);
    return { ...identified, leaderEpoch };
  }

  #stillThere({ topic, topicId }: Position): void {
    // Never seen: it may be made later.
    if (topicId === undefined || this.#wire.knownLeaders(topic) !== undefined) return;
    const now = performance.now();
    const since = this.#missingSince.get(topic) ?? now;
    this.#missingSince.set(topic, since);
    if (now - since < MISSING_PATIENCE_MS) return;
    throw new KafkaError(
      'LOG_TOPIC_MISSING',
      `topic ${topic} was read and exists no more. Restore it, or drop it and rebuild what is read from it.`,
      { facts: { topic } },
    );
  }

  #fetch(nodeId: number, asked: readonly FetchPartition[], limits: FetchLimits): void {
    const flight: Flight = {
      nodeId,
      asked: new Map(asked.map((position) => [`${position.topic}/${position.partition}`, position])),
      limits,
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
    this.#flights.set(nodeId, flight);
  }

  /**
   * Asks for what comes behind a flight that has landed, so that the broker works while that is decoded and handled. Only where it told of
   * more: then it answers at once, and nobody who seeks waits for it. Should the place turn out to be another one, the answer is passed by.
   */
  #fetchOn({ nodeId, asked, limits, partitions = [] }: Flight): void {
    const ends = new Map<string, number>();
    let more = false;
    for (const { topic, partition, error, bytes, lastStableOffset } of partitions) {
      if (error !== 0) return;
      const key = `${topic}/${partition}`;
      const { offset } = asked.get(key)!;
      const end = endOfBatches(bytes, offset, lastStableOffset);
      if (end === offset) continue;
      more ||= end < lastStableOffset;
      ends.set(key, end);
    }
    if (!more) return;
    const [waiting, brought]: FetchPartition[][] = [[], []];
    for (const [key, position] of this.#positions) {
      if (this.#wire.knownLeaders(position.topic)?.[position.partition] !== nodeId) continue;
      const identified = this.#identified(position);
      const end = sameOffset(position, asked.get(key)) ? ends.get(key) : undefined;
      // To the end of the order, as when it is advanced.
      if (end === undefined) waiting!.push(identified);
      else brought!.push({ ...identified, offset: end });
    }
    this.#fetch(nodeId, [...waiting!, ...brought!], { ...limits, maxWaitMs: 0 });
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
    let [leftBytes, packedBytes] = [this.#limits.maxBytes, 0];
    for (const flight of landed) {
      this.#flights.delete(flight.nodeId);
      if (flight.lost === undefined) this.#fetchOn(flight);
      if (flight.lost instanceof KafkaError && !flight.lost.retryable) throw flight.lost;
      if (flight.lost !== undefined) for (const { topic } of flight.asked.values()) moved.add(topic);
      for (const fetched of flight.partitions ?? []) {
        const key = `${fetched.topic}/${fetched.partition}`;
        const position = this.#positions.get(key);
        // Sought anew or dropped since the fetch was sent.
        if (position === undefined || !sameOffset(position, flight.asked.get(key))) continue;
        if (fetched.error !== 0) {
          await this.#failed(fetched, position);
          moved.add(fetched.topic);
          flight.lost ??= refused('Fetch', fetched.error, { topic: fetched.topic, partition: fetched.partition });
          continue;
        }
        // What does not fit is fetched again, in a share that does.
        if (leftBytes <= 0) continue;
        const { topic, partition, lastStableOffset, highWatermark } = fetched;
        const from = position.offset;
        const decoded = decodeFetched({ ...fetched, from, before: lastStableOffset, maxUnpackedBytes: leftBytes });
        const { records, nextOffset } = decoded;
        leftBytes -= decoded.unpackedBytes;
        packedBytes += decoded.packedBytes;
        if (nextOffset > from)
          batches.push({ topic, partition, from, records, nextOffset, lastStableOffset, highWatermark });
      }
    }
    if (packedBytes > 0) this.#expansion = Math.max(1, (this.#limits.maxBytes - leftBytes) / packedBytes);
    if (moved.size > 0) await this.#wire.tryRefresh([...moved]);
    return batches.filter((batch) => this.#advance(batch));
  }

  /** To the end of the order, too: the broker fills a fetch in the order asked. */
  #advance({ topic, partition, from, nextOffset }: FetchedBatch): boolean {
    const key = `${topic}/${partition}`;
    const position = this.#positions.get(key);
    if (position?.offset !== from) return false;
    this.#positions.set(key, { ...position, offset: nextOffset });
    moveToEnd(this.#positions, key);
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

function limitsOf(share: number): { maxBytes: number; partitionMaxBytes: number } {
  const maxBytes = Math.max(1, Math.floor(share));
  return { maxBytes, partitionMaxBytes: Math.max(1, Math.floor(share / PARTITION_SHARE)) };
}

/** The same place in the same topic. */
function sameOffset(position: Position | undefined, asked: Position | undefined): boolean {
  return position?.offset === asked?.offset && position?.topicId === asked?.topicId;
}

function moveToEnd<T>(map: Map<string, T>, key: string): void {
  const value = map.get(key)!;
  map.delete(key);
  map.set(key, value);
}
