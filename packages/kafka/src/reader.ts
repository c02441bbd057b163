import { setImmediate } from 'node:timers/promises';
import type { FetchedBatch, LogReader, PollOptions, TopicPartition } from '@headwater/core';
import { keepFreedMemory } from './freed-memory.js';
import { FetchedRecords, endOfBatches } from './fetched.js';
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

/** `maxBytes` are fetched at once, and end every poll when unpacked; a batch is never cut, so the one that fills it may reach beyond. */
export interface ReaderLimits {
  readonly maxBytes: number;
}

/** More would leave the processor's cache, and the connections full, before it is handled. */
const DEFAULT_POLL_BYTES = 256 << 10;
/** How long nothing more is asked for while a leader is missing and others have brought something. */
const IMPEDED_MS = 50;
/** At most so much of one partition per fetch, so that one with a long backlog leaves room for others. */
const PARTITION_SHARE = 2;
/** How long a topic that was read may be unknown to the brokers before it counts as deleted: some are late after a restart. */
const MISSING_PATIENCE_MS = 1_000;
const DEFAULT_MAX_WAIT_MS = 250;
/** How much later than asked a broker's answer may come before poll returns without it. */
const GRACE_MS = 100;

/**
 * One fetch of one leader, from its request until all that it brought is handed out. It outlives the poll that began it, so that a slow leader holds back nobody; what was sought or
 * dropped meanwhile is passed by.
 */
interface Flight {
  readonly nodeId: number;
  readonly asked: ReadonlyMap<string, FetchPartition>;
  readonly limits: FetchLimits;
  landing: Promise<void>;
  /** The leader did not answer, and that is not yet dealt with. */
  lost?: unknown;
  /** Partitions that the leader refused, as well. */
  refused: readonly FetchedPartition[];
  /** What it brought and is not handed out. */
  left: readonly Arrival[];
  /** What comes behind it is asked for, or need not be. */
  followed: boolean;
}

/** What came of one partition. */
interface Arrival {
  readonly fetched: FetchedPartition;
  readonly records: FetchedRecords;
}

/** The topic's id is learned by the first fetch and kept: these offsets belong to no other topic of that name. */
type Position = TopicPartition & { readonly offset: number; readonly topicId?: string };

export class KafkaReader implements LogReader {
  readonly #wire: Wire;
  readonly #lane: Lane;
  readonly #limits: ReaderLimits;
  readonly #positions = new Map<string, Position>();
  /** On their way, at most one per leader. */
  readonly #flights = new Map<number, Flight>();
  /** In the order in which they landed, at most two per leader: the first is handed out, behind it the next is asked for. */
  #landed: Flight[] = [];
  #impededAt = -Infinity;
  readonly #closing = new AbortController();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;

  readonly #missingSince = new Map<string, number>();

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

  async poll(options: PollOptions = {}): Promise<readonly FetchedBatch[]> {
    const { maxWaitMs = DEFAULT_MAX_WAIT_MS, maxBytes = DEFAULT_POLL_BYTES, signal } = options;
    const deadline = performance.now() + maxWaitMs;
    for (;;) {
      if (this.#closing.signal.aborted || this.#wire.closing.signal.aborted) throw closedError();
      if (signal?.aborted) return this.#ended();
      const leftMs = Math.max(0, deadline - performance.now());
      const launched = this.#mayLaunch() ? await this.#launch(Math.ceil(leftMs)) : 'complete';
      // A turn of the event loop, in which connections are read: brokers send on while this is handed out.
      if (this.#landed.length > 0) await setImmediate();
      else if (this.#flights.size > 0) await this.#landing(leftMs + GRACE_MS, signal);
      if (signal?.aborted) return this.#ended();
      const { batches, failed } = await this.#unload(maxBytes);
      const impeded = failed || launched === 'incomplete';
      if (impeded) this.#impededAt = performance.now();
      if (batches.length > 0 || performance.now() >= deadline) return batches;
      if (impeded || this.#positions.size === 0) {
        const pauseMs = impeded ? Math.min(IMPEDED_MS, deadline - performance.now()) : deadline - performance.now();
        await wait(pauseMs, signal, this.#closing.signal, this.#wire.closing.signal);
      }
    }
  }

  /** Room for what is sought by now: it would come behind all that waits, and behind fetches that brokers hold for the rest of their time. */
  #ended(): readonly [] {
    if (this.#flights.size > 0) this.#lane.cut();
    this.#flights.clear();
    this.#landed = [];
    return [];
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#wire.dismiss(this.#stoppable);
    this.#flights.clear();
    this.#landed = [];
    await this.#wire.release(this.#lane);
  }

  /** Nobody asks again and again for a leader that is missing while there is something to hand out. */
  #mayLaunch(): boolean {
    return this.#landed.length === 0 || performance.now() - this.#impededAt >= IMPEDED_MS;
  }

  /** Sends a fetch to every leader of which nothing is on its way or waits. */
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
    const share = this.#limits.maxBytes / Math.max(1, byLeader.led.size);
    for (const [nodeId, positions] of byLeader.led) {
      if (this.#flights.has(nodeId) || this.#landed.some((flight) => flight.nodeId === nodeId)) continue;
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
      refused: [],
      left: [],
      followed: false,
    };
    flight.landing = this.#wire.send(nodeId, fetch(asked, limits, this.#wire.requestTimeoutMs), this.#lane).then(
      ({ error, partitions }) => {
        if (error === 0) this.#land(flight, partitions);
        else this.#land(flight, [], refused('Fetch', error));
      },
      (error: unknown) => this.#land(flight, [], error),
    );
    this.#flights.set(nodeId, flight);
  }

  #land(flight: Flight, partitions: readonly FetchedPartition[], lost?: unknown): void {
    // Nobody waits for it any more.
    if (this.#flights.get(flight.nodeId) !== flight) return;
    this.#flights.delete(flight.nodeId);
    flight.lost = lost;
    flight.refused = partitions.filter(({ error }) => error !== 0);
    flight.left = partitions
      .filter(({ topic, partition, error, bytes }) => {
        return error === 0 && bytes.length > 0 && flight.asked.has(`${topic}/${partition}`);
      })
      .map((fetched) => {
        const { offset: from } = flight.asked.get(`${fetched.topic}/${fetched.partition}`)!;
        return { fetched, records: new FetchedRecords({ ...fetched, from, before: fetched.lastStableOffset }) };
      });
    this.#landed.push(flight);
  }

  /**
   * Asks for what comes behind a flight that has landed, before any of it is handed out, so that the broker works meanwhile. Only where it told of
   * more: then it answers at once, and who seeks hardly waits for it. Should the place turn out to be another one, the answer is passed by.
   */
  #fetchOn({ nodeId, asked, limits, left }: Flight): void {
    const ends = new Map<string, number>();
    let more = false;
    for (const { fetched } of left) {
      const { topic, partition, bytes, lastStableOffset } = fetched;
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
      const end = sameOffset(identified, asked.get(key)) ? ends.get(key) : undefined;
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
            if (flight.lost !== undefined || flight.refused.length + flight.left.length > 0) resolve();
          });
        }),
    );
    const all = Promise.all(flights.map(({ landing }) => landing));
    await Promise.race([...useful, all, wait(ms, over.signal, signal, this.#closing.signal)]);
    over.abort();
  }

  /**
   * Hands out a portion of what has landed. What stands before an error is handed out first; an error loses nothing: every position stays behind what was handed out, and
   * what has landed is fetched again.
   */
  async #unload(maxBytes: number): Promise<{ readonly batches: FetchedBatch[]; readonly failed: boolean }> {
    const batches: FetchedBatch[] = [];
    let leftBytes = maxBytes >= 1 ? Math.min(this.#limits.maxBytes, maxBytes) : 1;
    let failed = false;
    try {
      for (let flight = this.#landed[0]; flight !== undefined && leftBytes > 0; flight = this.#landed[0]) {
        if (flight.lost !== undefined || flight.refused.length > 0) {
          // Nothing is awaited from the first batch on: another place could be sought meanwhile.
          if (batches.length > 0) break;
          await this.#faulted(flight);
          failed = true;
        } else if (!flight.followed) {
          this.#fetchOn(flight);
        }
        flight.followed = true;
        const [arrival, ...rest] = flight.left;
        // A partition is handed out in one piece.
        if (arrival !== undefined && batches.some((batch) => samePartition(batch, arrival.fetched))) break;
        if (arrival !== undefined) leftBytes -= this.#read(flight, arrival, leftBytes, batches);
        if (arrival?.records.done !== false) flight.left = rest;
        if (flight.left.length === 0) this.#landed.shift();
      }
    } catch (error) {
      if (batches.length === 0) {
        this.#landed = [];
        throw error;
      }
    }
    return { batches, failed };
  }

  /** Reads on in what came of one partition, and returns how many bytes were unpacked. */
  #read({ asked }: Flight, { fetched, records: arrived }: Arrival, maxBytes: number, batches: FetchedBatch[]): number {
    const { topic, partition, lastStableOffset, highWatermark } = fetched;
    const key = `${topic}/${partition}`;
    const position = this.#positions.get(key);
    const from = arrived.nextOffset;
    // Sought anew or dropped since the fetch was sent.
    const { topicId } = asked.get(key)!;
    if (position?.offset !== from || topicId !== (position.topicId ?? this.#wire.knownTopicId(topic))) {
      arrived.skip();
      return 0;
    }
    const { records, unpackedBytes } = arrived.read(maxBytes);
    const { nextOffset } = arrived;
    if (nextOffset === from) return unpackedBytes;
    batches.push({ topic, partition, from, records, nextOffset, lastStableOffset, highWatermark });
    // To the end of the order, too: the broker fills a fetch in the order asked.
    this.#positions.delete(key);
    this.#positions.set(key, { ...position, topicId, offset: nextOffset });
    return unpackedBytes;
  }

  /** Looks for new leaders after what heals by itself, and throws what does not. */
  async #faulted(flight: Flight): Promise<void> {
    const { lost } = flight;
    if (lost instanceof KafkaError && !lost.retryable) throw lost;
    const moved = new Set<string>();
    if (lost !== undefined) for (const { topic } of flight.asked.values()) moved.add(topic);
    for (const fetched of flight.refused) {
      const key = `${fetched.topic}/${fetched.partition}`;
      const position = this.#positions.get(key);
      if (position === undefined || !sameOffset(position, flight.asked.get(key))) continue;
      await this.#refused(fetched, position);
      moved.add(fetched.topic);
    }
    flight.lost = undefined;
    flight.refused = [];
    if (moved.size > 0) await this.#wire.tryRefresh([...moved]);
  }

  async #refused({ topic, partition, error }: FetchedPartition, { offset }: Position): Promise<void> {
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

function samePartition(one: TopicPartition, other: TopicPartition): boolean {
  return one.partition === other.partition && one.topic === other.topic;
}

/** The same place in the same topic. */
function sameOffset(position: Position | undefined, asked: Position | undefined): boolean {
  return position?.offset === asked?.offset && position?.topicId === asked?.topicId;
}
