import { BufferPool, errorMessage, type TopicPartition } from '@headwater/core';
import { BatchLimits } from './batch-limits.js';
import { packer, type Compression, type Packer } from './codecs.js';
import {
  COORDINATOR_NOT_AVAILABLE,
  CONCURRENT_TRANSACTIONS,
  KafkaError,
  NOT_COORDINATOR,
  isRetriable,
  refused,
} from './kafka.errors.js';
import type { ConnectionBuilder } from './kafkajs-hook.js';
import { Lane, closedError, type Address } from './lane.js';
import type { Answer, Call, CoordinatorType } from './requests/call.js';
import { findCoordinator, metadata } from './requests/cluster.js';
import { wait } from './wait.js';

/** Above nearly every request. */
const LARGEST_REUSED_BYTES = 1 << 23;
const OF_VERSION: ReadonlySet<string> = new Set(['KAFKA_TOO_OLD', 'KAFKA_TOO_NEW']);

export interface WireOptions {
  readonly brokers: readonly string[];
  readonly requestTimeoutMs: number;
  readonly compression?: Compression;
}

export interface PatienceOptions {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal;
  /** Told of every attempt that may have been done without an answer. */
  readonly onLost?: (cause: unknown) => void;
}

/** What everybody on one cluster shares: addresses, leaders, coordinators. No I/O before first use. */
export class Wire {
  readonly requestTimeoutMs: number;
  readonly closing = new AbortController();
  /** For requests, and for what they are made of. */
  readonly buffers = new BufferPool(LARGEST_REUSED_BYTES, 2 * LARGEST_REUSED_BYTES);
  /** What was learnt by one writer or producer, all others know. */
  readonly batchLimits = new BatchLimits((call) => this.ask(call));
  readonly #builder: ConnectionBuilder;
  readonly #seeds: readonly Address[];
  readonly #shared: Lane;
  readonly #lanes = new Set<Lane>();
  readonly #owned = new Set<Stoppable>();
  readonly #brokers = new Map<number, Address>();
  readonly #leaders = new Map<string, readonly number[]>();
  readonly #leaderEpochs = new Map<string, readonly number[]>();
  readonly #topicIds = new Map<string, string>();
  readonly #refusals = new Map<string, KafkaError>();
  readonly #coordinators = new Map<string, number>();
  readonly #compression: Compression | undefined;
  #packer: Promise<Packer | undefined> | undefined;
  #turn = 0;

  constructor(builder: ConnectionBuilder, options: WireOptions) {
    this.#builder = builder;
    this.#seeds = options.brokers.map(parseAddress);
    this.requestTimeoutMs = options.requestTimeoutMs;
    this.#compression = options.compression;
    this.#shared = this.lane();
  }

  /** Connections for one owner, who closes them with `release`. */
  lane(): Lane {
    const lane = new Lane(this.#builder, this.requestTimeoutMs, this.buffers);
    this.#lanes.add(lane);
    return lane;
  }

  async release(lane: Lane): Promise<void> {
    this.#lanes.delete(lane);
    await lane.close();
  }

  /** What is to be ended before the connections are: groups leave, transactions are aborted. */
  adopt(one: Stoppable): void {
    this.assertOpen();
    this.#owned.add(one);
  }

  dismiss(one: Stoppable): void {
    this.#owned.delete(one);
  }

  async close(): Promise<void> {
    // Groups first: their work may still be writing its last transaction.
    for (const order of [0, 1]) {
      await Promise.all([...this.#owned].filter((one) => one.order === order).map((one) => one.stop()));
    }
    this.closing.abort();
    await Promise.all([...this.#lanes].map((lane) => this.release(lane)));
  }

  assertOpen(): void {
    if (this.closing.signal.aborted) throw closedError();
  }

  /** What the writers compress their batches with; undefined: they do not. Rejects with LOG_CODEC_MISSING. */
  packer(): Promise<Packer | undefined> {
    this.#packer ??= this.#compression === undefined ? Promise.resolve(undefined) : packer(this.#compression);
    return this.#packer;
  }

  async send<T>(nodeId: number, call: Call<T>, lane: Lane = this.#shared): Promise<T> {
    const address = this.#brokers.get(nodeId);
    if (address === undefined) throw new Error(`broker ${nodeId} is not in the metadata`);
    return lane.send(address, call);
  }

  /** Asks one broker after the other, the known ones first, until one answers. */
  async ask<T>(call: Call<T>): Promise<T> {
    const addresses = [...this.#brokers.values(), ...this.#seeds];
    let last: unknown;
    let ofVersion: KafkaError | undefined;
    let unheard = 0;
    for (let tried = 0; tried < addresses.length; tried++) {
      this.assertOpen();
      try {
        return await this.#shared.send(addresses[this.#turn % addresses.length]!, call);
      } catch (error) {
        last = error;
        this.#turn++;
        if (!(error instanceof KafkaError)) unheard++;
        else if (OF_VERSION.has(error.code)) ofVersion = error;
        else throw error;
      }
    }
    // Brokers differ while a cluster is upgraded: one that was not heard may speak what the others do not.
    if (ofVersion !== undefined && unheard === 0) throw ofVersion;
    last = ofVersion ?? last;
    throw unreachable(call.apiName, addresses.map(({ host, port }) => `${host}:${port}`).join(', '), last);
  }

  /** The brokers as last seen; all of them after a `refresh`. */
  nodeIds(): readonly number[] {
    return [...this.#brokers.keys()];
  }

  /** The partitions' leaders, -1 for none; undefined when the topic does not exist. */
  async leaders(topic: string): Promise<readonly number[] | undefined> {
    if (!this.#leaders.has(topic)) await this.refresh([topic]);
    return this.#leaders.get(topic);
  }

  /** As last seen; another one when the topic was deleted and made again. */
  knownTopicId(topic: string): string | undefined {
    return this.#topicIds.get(topic);
  }

  /** The leaders as last seen, without asking. */
  knownLeaders(topic: string): readonly number[] | undefined {
    return this.#leaders.get(topic);
  }

  /** Why the brokers tell nothing of the topic, when they said so last: its name is none, or it is not for this user. */
  knownRefusal(topic: string): KafkaError | undefined {
    return this.#refusals.get(topic);
  }

  /** Of the leader as last seen; undefined: unknown. */
  knownLeaderEpoch({ topic, partition }: TopicPartition): number | undefined {
    return this.#leaderEpochs.get(topic)?.[partition];
  }

  async refresh(topics: readonly string[]): Promise<void> {
    const answer = await this.ask(metadata([...new Set(topics)]));
    for (const { nodeId, host, port } of answer.brokers) this.#brokers.set(nodeId, { host, port });
    let refusal: KafkaError | undefined;
    for (const { topic, id, error, leaders, leaderEpochs } of answer.topics) {
      this.#refusals.delete(topic);
      if (error === 17 || error === 29) {
        const told = refused('Metadata', error, { topic });
        this.#refusals.set(topic, told);
        refusal ??= told;
      }
      if (error === 0 || leaders.length > 0) {
        this.#leaders.set(topic, leaders);
        this.#leaderEpochs.set(topic, leaderEpochs);
        this.#topicIds.set(topic, id);
      } else {
        this.#leaders.delete(topic);
        this.#leaderEpochs.delete(topic);
        this.#topicIds.delete(topic);
      }
    }
    // Behind all others: what is forbidden is nothing to them.
    if (refusal !== undefined) throw refusal;
  }

  /** As `refresh`; a cluster that does not answer leaves what was known. Tells whether it did. */
  async tryRefresh(topics: readonly string[]): Promise<boolean> {
    try {
      await this.refresh(topics);
      return true;
    } catch (error) {
      if (error instanceof KafkaError && !error.retryable) throw error;
      return false;
    }
  }

  /** Partitions by the broker that leads them; those without a leader are named. */
  async byLeader<T extends TopicPartition>(items: readonly T[]): Promise<{ led: Map<number, T[]>; leaderless: T[] }> {
    const led = new Map<number, T[]>();
    const leaderless: T[] = [];
    for (const item of items) {
      const leader = (this.#leaders.get(item.topic) ?? (await this.leaders(item.topic)))?.[item.partition] ?? -1;
      const known = led.get(leader);
      if (leader < 0) leaderless.push(item);
      else if (known === undefined) led.set(leader, [item]);
      else known.push(item);
    }
    return { led, leaderless };
  }

  /**
   * Sends the call to the coordinator until the answer is final. The same call is repeated after a lost answer, so it must be one that may
   * be done twice. Rejects with KAFKA_UNREACHABLE when `deadlineMs` passed.
   */
  coordinated<T extends Answer>(
    type: CoordinatorType,
    key: string,
    call: Call<T>,
    lane: Lane,
    options: PatienceOptions,
  ): Promise<T> {
    return this.#patiently(call, key, options, () => this.#askCoordinator(type, key, call, lane, options));
  }

  /** As `coordinated`, for what every broker can do. */
  anyAnswer<T extends Answer>(call: Call<T>, options: PatienceOptions): Promise<T> {
    return this.#patiently(call, 'any broker', options, () => this.ask(call));
  }

  async coordinator(type: CoordinatorType, key: string): Promise<number> {
    const known = this.#coordinators.get(`${type}/${key}`);
    if (known !== undefined) return known;
    const answer = await this.ask(findCoordinator(type, key));
    if (answer.error !== 0) throw refused('FindCoordinator', answer.error, { key });
    if (!this.#brokers.has(answer.nodeId)) await this.refresh([]);
    this.#coordinators.set(`${type}/${key}`, answer.nodeId);
    return answer.nodeId;
  }

  forgetCoordinator(type: CoordinatorType, key: string): void {
    this.#coordinators.delete(`${type}/${key}`);
  }

  async #patiently<T extends Answer>(
    call: Call<T>,
    where: string,
    options: PatienceOptions,
    ask: () => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + options.deadlineMs;
    for (let pauseMs = 2; ;) {
      let last: unknown;
      // A request that waits at the broker is cut off once, when the signal aborts: none may follow.
      if (options.signal?.aborted) throw unreachable(call.apiName, where, 'given up');
      try {
        const answer = await ask();
        if (!isRetriable(answer.error)) return answer;
        last = refused(call.apiName, answer.error, { key: where });
        pauseMs = Math.min(pauseMs * 2, answer.error === CONCURRENT_TRANSACTIONS ? 10 : 200);
      } catch (error) {
        if (error instanceof KafkaError && !error.retryable) throw error;
        last = error;
        pauseMs = Math.min(Math.max(pauseMs * 2, 25), 200);
      }
      this.assertOpen();
      if (options.signal?.aborted || performance.now() + pauseMs > deadline)
        throw unreachable(call.apiName, where, last);
      await wait(pauseMs, options.signal, this.closing.signal);
    }
  }

  async #askCoordinator<T extends Answer>(
    type: CoordinatorType,
    key: string,
    call: Call<T>,
    lane: Lane,
    { onLost }: PatienceOptions,
  ): Promise<T> {
    const nodeId = await this.coordinator(type, key);
    try {
      const answer = await this.send(nodeId, call, lane);
      if (answer.error === COORDINATOR_NOT_AVAILABLE || answer.error === NOT_COORDINATOR)
        this.forgetCoordinator(type, key);
      return answer;
    } catch (error) {
      this.forgetCoordinator(type, key);
      onLost?.(error);
      throw error;
    }
  }
}

export interface Stoppable {
  /** 0 is stopped before 1. */
  readonly order: 0 | 1;
  stop(): Promise<void>;
}

export function unreachable(what: string, where: string, cause: unknown): KafkaError {
  return new KafkaError(
    'KAFKA_UNREACHABLE',
    `${what} (${where}) got no usable answer in time: ${errorMessage(cause)}. Check that the brokers run and are reachable.`,
    { retryable: true, cause, facts: { request: what, where } },
  );
}

function parseAddress(broker: string): Address {
  const colon = broker.lastIndexOf(':');
  const port = Number(broker.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new KafkaError('LOG_OPTIONS_INVALID', `broker "${broker}" is not host:port. Write it like "kafka-1:9092".`, {
      facts: { broker },
    });
  }
  return { host: broker.slice(0, colon), port };
}
