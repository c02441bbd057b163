import { setImmediate } from 'node:timers/promises';
import type { FetchedBatch, LogReader, PollOptions, TopicPartition } from '@headwater/core';
import { Cursor } from './cursor.js';
import { keepFreedMemory } from './freed-memory.js';
import { CORRUPT_MESSAGE, KafkaError, OFFSET_OUT_OF_RANGE, refused } from './kafka.errors.js';
import { closedError, type Lane } from './lane.js';
import { EARLIEST, LATEST, fetch, listOffsets, type FetchPartition, type FetchedPartition } from './requests/fetch.js';
import { corrupt, outOfRange, topicMissing, topicRecreated } from './reader.errors.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

/** `maxBytes` are fetched at once, and end every poll when unpacked; a batch is never cut, so the one that fills it may reach beyond. */
export interface ReaderLimits {
  readonly maxBytes: number;
}

export type ReaderWire = Pick<
  Wire,
  | 'adopt'
  | 'closing'
  | 'dismiss'
  | 'knownLeaderEpoch'
  | 'knownLeaders'
  | 'knownRefusal'
  | 'knownTopicId'
  | 'lane'
  | 'leaders'
  | 'release'
  | 'requestTimeoutMs'
  | 'send'
  | 'tryRefresh'
>;

/** More would leave the processor's cache, and the connections full, before it is handled. */
const DEFAULT_POLL_BYTES = 256 << 10;
/** At most so much of one partition per fetch, so that one with a long backlog leaves room for others. */
const PARTITION_SHARE = 2;
/** What partitions that are paused may keep in memory, in fetches; the rest is fetched again. */
const PAUSED_FETCHES = 4;
/** How long a partition rests whose leader refused or is missing, or whose error was told. */
const REST_MS = 50;
/** How long a broker may hold a fetch: what is sought or resumed meanwhile, and led by it, waits so long. */
const HOLD_MS = 250;
/** How long a topic that was read may be unknown to the brokers before it counts as deleted: some are late after a restart. */
const MISSING_PATIENCE_MS = 1_000;
const DEFAULT_MAX_WAIT_MS = 250;
/** How much later than asked a broker's answer may come before poll returns without it. */
const GRACE_MS = 100;
/** Of a timer. */
const LONGEST_MS = 2 ** 31 - 1;
/** Stands for the leader of partitions whose leader is looked for. */
const NOBODY = -1;

/**
 * A request under way: a fetch from a leader, the search for leaders, or the look at what the log holds of one partition. It outlives the poll that began it, so that a slow leader holds
 * back nobody.
 */
interface Flight {
  /** When its answer is to be expected, by `performance.now()`: until then a broker that has nothing may hold it. */
  readonly dueAt: number;
}

/**
 * Asks every leader for what it leads, at most one fetch each, and the next while what the last one brought is handed out. What is of one partition stays with its cursor: its backlog, its
 * rest after a refusal, its error.
 */
export class KafkaReader implements LogReader {
  readonly #wire: ReaderWire;
  readonly #lane: Lane;
  readonly #limits: ReaderLimits;
  /** The one that was handed out last comes last. */
  readonly #cursors = new Map<string, Cursor>();
  /** By leader, and by partition: what has one is not asked for. */
  readonly #flights = new Map<number | Cursor, Flight>();
  #arrived = new AbortController();
  readonly #closing = new AbortController();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;

  constructor(wire: ReaderWire, limits: ReaderLimits) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#lane = wire.lane();
    this.#limits = limits;
    keepFreedMemory();
  }

  seek(topic: string, partition: number, offset: number): void {
    this.#cursors.set(`${topic}/${partition}`, new Cursor(topic, partition, offset));
    this.#wake();
  }

  drop(topic: string, partition: number): void {
    this.#cursors.delete(`${topic}/${partition}`);
  }

  pause(topic: string, partition: number): void {
    const cursor = this.#cursors.get(`${topic}/${partition}`);
    if (cursor === undefined) return;
    cursor.isPaused = true;
    this.#keepLittle(cursor);
  }

  resume(topic: string, partition: number): void {
    const cursor = this.#cursors.get(`${topic}/${partition}`);
    if (cursor === undefined || !cursor.isPaused) return;
    cursor.isPaused = false;
    // Of a time when nobody asked.
    cursor.fault = undefined;
    cursor.missingSince = undefined;
    this.#wake();
  }

  async poll(options: PollOptions = {}): Promise<readonly FetchedBatch[]> {
    const { maxWaitMs = DEFAULT_MAX_WAIT_MS, maxBytes = DEFAULT_POLL_BYTES, signal } = options;
    const deadline = performance.now() + maxWaitMs;
    for (let isFirst = true; ; isFirst = false) {
      // One for both: what rests when others are asked for is waited for, however soon it has rested.
      const now = performance.now();
      if (this.#closing.signal.aborted || this.#wire.closing.signal.aborted) throw closedError();
      if (signal?.aborted) return this.#ended();
      if (isFirst || now <= deadline) this.#ask(now, deadline);
      if (!this.#isReady) {
        if (performance.now() >= this.#patience(deadline)) return [];
        await this.#arrival(now, deadline, signal);
        continue;
      }
      // A turn of the event loop, in which connections are read: brokers send on while this is handed out.
      await setImmediate();
      if (signal?.aborted) return this.#ended();
      const batches = this.#handOut(maxBytes >= 1 ? Math.min(this.#limits.maxBytes, maxBytes) : 1);
      if (batches.length > 0) return batches;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#wire.dismiss(this.#stoppable);
    this.#flights.clear();
    this.#cursors.clear();
    await this.#wire.release(this.#lane);
  }

  /** What is sought by now is not to wait for fetches that brokers hold for the rest of their time. */
  #ended(): readonly [] {
    const now = performance.now();
    if ([...this.#flights.values()].some(({ dueAt }) => dueAt > now)) {
      this.#flights.clear();
      this.#lane.cut();
    }
    return [];
  }

  get #isReady(): boolean {
    for (const cursor of this.#cursors.values()) if (cursor.isReady) return true;
    return false;
  }

  /** Sends what is to be asked now: a fetch to every leader that may bring something and has none under way, and the search for leaders. */
  #ask(now: number, deadline: number): void {
    const byLeader = new Map<number, Cursor[]>();
    for (const cursor of this.#cursors.values()) {
      if (cursor.isPaused || cursor.fault !== undefined || cursor.restsUntil > now || this.#flights.has(cursor))
        continue;
      const leader = this.#leaderOf(cursor);
      const others = byLeader.get(leader);
      if (others === undefined) byLeader.set(leader, [cursor]);
      else others.push(cursor);
    }
    const strays = byLeader.get(NOBODY);
    byLeader.delete(NOBODY);
    // First: no fetch is held for long while leaders are looked for.
    if (strays !== undefined && !this.#flights.has(NOBODY))
      this.#launch(NOBODY, Math.min(deadline, now), (isAwaited) => this.#search(strays, isAwaited));
    const share = Math.max(1, Math.floor(this.#limits.maxBytes / Math.max(1, byLeader.size)));
    for (const [leader, cursors] of byLeader)
      if (!this.#flights.has(leader)) this.#fetch(leader, cursors, share, deadline);
  }

  #leaderOf({ topic, partition, isStray }: Cursor): number {
    return isStray ? NOBODY : (this.#wire.knownLeaders(topic)?.[partition] ?? NOBODY);
  }

  /** While something waits, only when there is more, so that the broker answers at once; while much waits, only for what nothing is known of. */
  #fetch(leader: number, led: readonly Cursor[], maxBytes: number, deadline: number): void {
    const isIdle = led.every(({ isDrained }) => isDrained);
    const hasRoom = waitingBytesOf(led) <= maxBytes;
    if (!isIdle && !led.some(({ isFresh, hasMore }) => isFresh || (hasRoom && hasMore))) return;
    const wanted = led.filter((cursor) => (hasRoom || cursor.isFresh) && this.#identify(cursor));
    if (wanted.length === 0) return;
    // A broker fills a fetch in the order asked.
    const cursors = [...wanted.filter(({ isDrained }) => isDrained), ...wanted.filter(({ isDrained }) => !isDrained)];
    const now = performance.now();
    const dueAt = isIdle ? Math.min(deadline, now + (this.#isSettled ? HOLD_MS : REST_MS)) : now;
    const maxWaitMs = Math.max(0, Math.ceil(dueAt - now));
    const limits = { maxWaitMs, maxBytes, partitionMaxBytes: Math.max(1, Math.floor(maxBytes / PARTITION_SHARE)) };
    this.#launch(leader, dueAt, async (isAwaited) => {
      const places = cursors.map((cursor) => this.#placeOf(cursor));
      const call = fetch(places, limits, this.#wire.requestTimeoutMs);
      try {
        const { error, partitions } = await this.#wire.send(leader, call, this.#lane);
        if (error !== 0) throw refused('Fetch', error);
        if (isAwaited()) this.#land(places, partitions);
      } catch (error) {
        if (isAwaited()) for (const place of places) this.#failed(place, error);
      }
    });
  }

  /** Nothing rests or is looked for that may have to be asked for in a moment. */
  get #isSettled(): boolean {
    const now = performance.now();
    const isLookingFor = (to: number | Cursor) => typeof to !== 'number' || to === NOBODY;
    return (
      ![...this.#flights.keys()].some(isLookingFor) &&
      // One that nobody has made may rest and be looked for without an end.
      ![...this.#cursors.values()].some(({ restsUntil, topicId }) => restsUntil > now && topicId !== undefined)
    );
  }

  #placeOf(cursor: Cursor): Place {
    const { topic, partition, topicId = '', end } = cursor;
    return { topic, partition, topicId, offset: end, leaderEpoch: this.#wire.knownLeaderEpoch(cursor) ?? -1, cursor };
  }

  /** False: the topic was deleted and made again since it was first asked for. */
  #identify(cursor: Cursor): boolean {
    const { topic, partition, topicId: wanted, end: offset } = cursor;
    const found = this.#wire.knownTopicId(topic);
    cursor.topicId ??= found;
    if (cursor.topicId === found) return true;
    cursor.fault = topicRecreated({ topic, partition, offset }, wanted, found);
    return false;
  }

  #land(places: readonly Place[], partitions: readonly FetchedPartition[]): void {
    const byKey = new Map(places.map((place) => [keyOf(place), place]));
    for (const fetched of partitions) {
      const place = byKey.get(keyOf(fetched));
      if (place === undefined) continue;
      byKey.delete(keyOf(fetched));
      if (fetched.error !== 0) {
        this.#refused(place, fetched.error);
        continue;
      }
      place.cursor.land(place.offset, fetched);
      if (place.cursor.isPaused) this.#keepLittle(place.cursor);
    }
    // Asked for, and not answered.
    for (const { cursor } of byKey.values()) this.#rest(cursor);
  }

  /** Has a paused partition forget what it keeps when all of them keep too much. */
  #keepLittle(cursor: Cursor): void {
    const paused = [...this.#cursors.values()].filter(({ isPaused }) => isPaused);
    if (memoryOf(paused) > PAUSED_FETCHES * this.#limits.maxBytes) cursor.forget();
  }

  #refused(place: Place, error: number): void {
    const { topic, partition, offset, cursor } = place;
    const facts = { topic, partition, offset };
    if (error === OFFSET_OUT_OF_RANGE) {
      this.#launch(cursor, performance.now(), (isAwaited) => this.#lookFor(place, isAwaited));
    } else if (error === CORRUPT_MESSAGE) {
      this.#failed(place, corrupt({ topic, partition, offset }));
    } else {
      this.#failed(place, refused('Fetch', error, facts));
    }
  }

  /** Rests after what heals by itself; the next poll that comes to it tells of what does not. Another place than the cursor's by now is not its own. */
  #failed({ cursor, offset }: Pick<Place, 'cursor' | 'offset'>, error: unknown): void {
    if (cursor.end !== offset) return;
    if (error instanceof KafkaError && !error.retryable) cursor.fault = error;
    else this.#rest(cursor);
  }

  #rest(cursor: Cursor): void {
    cursor.isStray = true;
    cursor.restsUntil = performance.now() + REST_MS;
  }

  /** Finds out whether a place that a leader does not have lies outside of the log. */
  async #lookFor(place: Place, isAwaited: () => boolean): Promise<void> {
    const { topic, partition, offset, cursor } = place;
    try {
      const leader = (await this.#wire.leaders(topic))?.[partition] ?? NOBODY;
      if (leader === NOBODY) throw new Error(`${topic}-${partition} has no leader`);
      const [start] = await this.#wire.send(leader, listOffsets([place], EARLIEST, 'all'));
      const [high] = await this.#wire.send(leader, listOffsets([place], LATEST, 'all'));
      if (!isAwaited()) return;
      // A new leader may lag for a moment; an offset inside the range is asked for again.
      const isKnown = start?.error === 0 && high?.error === 0;
      if (!isKnown || (offset >= start.offset && offset <= high.offset)) this.#rest(cursor);
      else this.#failed(place, outOfRange(place, start.offset, high.offset));
    } catch (error) {
      if (isAwaited()) this.#failed(place, error);
    }
  }

  async #search(cursors: readonly Cursor[], isAwaited: () => boolean): Promise<void> {
    let failure: unknown;
    const refreshing = this.#wire.tryRefresh(cursors.map(({ topic }) => topic));
    const isAnswered = await refreshing.catch((error: unknown) => {
      failure = error;
      return true;
    });
    if (!isAwaited()) return;
    const refusals = cursors.map(({ topic }) => this.#wire.knownRefusal(topic));
    const ofAll = refusals.some((refusal) => refusal === failure) ? undefined : failure;
    const missing = new Map<string, KafkaError>();
    for (const [n, cursor] of cursors.entries()) {
      const { topic } = cursor;
      cursor.isStray = false;
      cursor.fault ??= refusals[n] ?? ofAll;
      if (cursor.fault !== undefined || this.#wire.knownLeaders(topic) !== undefined) cursor.missingSince = undefined;
      if (cursor.fault !== undefined || this.#leaderOf(cursor) !== NOBODY) continue;
      this.#rest(cursor);
      if (!isAnswered || !hasGone(cursor, this.#wire)) continue;
      if (!missing.has(topic)) missing.set(topic, topicMissing(topic));
      cursor.fault = missing.get(topic);
    }
  }

  /** Has a request under way until `fly` resolves; nobody awaits it any more when a poll was ended meanwhile. */
  #launch(to: number | Cursor, dueAt: number, fly: (isAwaited: () => boolean) => Promise<void>): void {
    const flight: Flight = { dueAt };
    const isAwaited = () => this.#flights.get(to) === flight;
    this.#flights.set(to, flight);
    void fly(isAwaited).then(() => {
      if (!isAwaited()) return;
      this.#flights.delete(to);
      this.#wake();
    });
  }

  /** Until when a poll waits: its answers may come a little later than they are due. */
  #patience(deadline: number): number {
    const due = [...this.#flights.values()].filter(({ dueAt }) => dueAt <= deadline);
    return Math.max(deadline, ...due.map(({ dueAt }) => dueAt + GRACE_MS));
  }

  /** Ends an `#arrival`. With a reason, or an error would be made of it. */
  #wake(): void {
    this.#arrived.abort('arrived');
  }

  /** Resolves when something has come or was sought, when a request or a rest is over, and when the time is. */
  async #arrival(now: number, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    this.#arrived = new AbortController();
    let until = this.#patience(deadline);
    for (const { isPaused, restsUntil } of this.#cursors.values()) {
      if (!isPaused && restsUntil > now) until = Math.min(until, restsUntil);
    }
    await wait(
      Math.min(until - now, LONGEST_MS),
      this.#arrived.signal,
      signal,
      this.#closing.signal,
      this.#wire.closing.signal,
    );
  }

  /**
   * A portion of what has come, each partition in its turn and once. An error is told when nothing is handed out with it, and loses nothing: the position stays behind what was handed
   * out, and others keep what has come of them.
   */
  #handOut(maxBytes: number): FetchedBatch[] {
    const batches: FetchedBatch[] = [];
    let leftBytes = maxBytes;
    const cursors = [...this.#cursors.values()];
    for (const cursor of cursors) {
      if (leftBytes <= 0) break;
      if (!cursor.isReady) continue;
      if (!cursor.isDrained) {
        const { batch, unpackedBytes } = cursor.take(leftBytes);
        leftBytes -= unpackedBytes;
        if (batch === undefined) continue;
        batches.push(batch);
        this.#toTheEnd(cursor);
      } else if (batches.length === 0) {
        this.#tell(cursor.fault);
      }
    }
    return batches;
  }

  /** Once, and everybody whom it befell rests and lets others come first. */
  #tell(fault: unknown): never {
    const cursors = [...this.#cursors.values()];
    for (const cursor of cursors) {
      if (cursor.fault !== fault) continue;
      cursor.fault = undefined;
      cursor.restsUntil = performance.now() + REST_MS;
      this.#toTheEnd(cursor);
    }
    throw fault;
  }

  #toTheEnd(cursor: Cursor): void {
    const key = keyOf(cursor);
    this.#cursors.delete(key);
    this.#cursors.set(key, cursor);
  }
}

/** It was read, and the brokers know it no more for too long. One that was never seen may be made later. */
function hasGone(cursor: Cursor, wire: ReaderWire): boolean {
  if (cursor.topicId === undefined || wire.knownLeaders(cursor.topic) !== undefined) return false;
  cursor.missingSince ??= performance.now();
  return performance.now() - cursor.missingSince >= MISSING_PATIENCE_MS;
}

/** Where a fetch of one partition begins. */
type Place = FetchPartition & { readonly cursor: Cursor };

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

function waitingBytesOf(cursors: readonly Cursor[]): number {
  return cursors.reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
}

/** What holds their pieces: an answer stays in memory until the last piece of it is gone. */
function memoryOf(cursors: readonly Cursor[]): number {
  let bytes = 0;
  for (const memory of new Set(cursors.flatMap((cursor) => cursor.memory))) bytes += memory.byteLength;
  return bytes;
}
