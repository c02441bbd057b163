import { recordBatch } from './batch.testing.js';
import { ByteReader, ByteWriter } from './bytes.js';
import { KafkaError, refused } from './kafka.errors.js';
import type { Lane } from './lane.js';
import type { ReaderWire } from './reader.js';
import type { Call } from './requests/call.js';
import type { FetchedPartition } from './requests/fetch.js';
import { wait } from './wait.js';

const REPLICA_NOT_LEADER = 6;
const UNKNOWN_TOPIC_ID = 100;
const EMPTY = { highWatermark: -1, lastStableOffset: -1, aborted: [], bytes: Buffer.alloc(0) };

/** One partition, and how its brokers behave. */
export interface FakePartition {
  leader: number;
  /** One record each; offsets from 0 on. */
  readonly batches: Buffer[];
  /** What a fetch of it is answered with instead. */
  error?: number | undefined;
}

/** Brokers of a test's making, as a reader sees them: they answer fetches as real ones do, held until something comes, and note what they were asked for. */
export class FakeBrokers implements ReaderWire {
  readonly requestTimeoutMs = 1_000;
  readonly closing = new AbortController();
  /** `topic/partition@offset …` of each fetch. */
  readonly fetches: string[] = [];
  readonly forbidden = new Set<string>();
  /** Nobody answers who leads what. */
  isSilent = false;
  /** Called before any request is answered; may reject instead. */
  onSend: (apiName: string) => unknown = () => undefined;
  /** What ListOffsets tells: who looks asks for the start first, then for the end. */
  range = { start: 0, high: 0 };
  readonly #topics = new Map<string, { id: string; readonly partitions: readonly FakePartition[] }>();
  readonly #known = new Map<string, { readonly id: string; readonly leaders: readonly number[] }>();
  readonly #refusals = new Map<string, KafkaError>();
  #changed = new AbortController();
  /** By the number that their ids are made of. */
  readonly #names: string[] = [];
  #looks = 0;

  /** Gives a topic these leaders, under a new id. */
  topic(topic: string, ...leaders: readonly number[]): readonly FakePartition[] {
    const partitions = leaders.map((leader): FakePartition => ({ leader, batches: [] }));
    const id = Buffer.alloc(16, this.#names.push(topic)).toString('base64url');
    this.#topics.set(topic, { id, partitions });
    return partitions;
  }

  delete(topic: string): void {
    this.#topics.delete(topic);
    this.changed();
  }

  add(topic: string, partition: number, ...texts: readonly string[]): void {
    const { batches } = this.#topics.get(topic)!.partitions[partition]!;
    for (const text of texts) {
      const bytes = recordBatch(
        [{ topic, key: null, value: Buffer.from(text) }],
        { producerId: 1n, epoch: 0, baseSequence: 0 },
        0,
      );
      bytes.writeBigInt64BE(BigInt(batches.length), 0);
      batches.push(bytes);
    }
    this.changed();
  }

  /** Has held fetches look again. */
  changed(): void {
    this.#changed.abort('changed');
    this.#changed = new AbortController();
  }

  adopt(): void {}

  dismiss(): void {}

  release(): Promise<void> {
    return Promise.resolve();
  }

  lane(): Lane {
    return { cut: () => this.changed() } as unknown as Lane;
  }

  knownLeaders(topic: string): readonly number[] | undefined {
    return this.#known.get(topic)?.leaders;
  }

  knownTopicId(topic: string): string | undefined {
    return this.#known.get(topic)?.id;
  }

  knownLeaderEpoch(): number {
    return 0;
  }

  knownRefusal(topic: string): KafkaError | undefined {
    return this.#refusals.get(topic);
  }

  async leaders(topic: string): Promise<readonly number[] | undefined> {
    if (!this.#known.has(topic)) await this.tryRefresh([topic]);
    return this.knownLeaders(topic);
  }

  async tryRefresh(topics: readonly string[]): Promise<boolean> {
    await this.onSend('Metadata');
    if (this.isSilent) return false;
    for (const topic of topics) {
      const found = this.forbidden.has(topic) ? undefined : this.#topics.get(topic);
      if (found === undefined) this.#known.delete(topic);
      else this.#known.set(topic, { id: found.id, leaders: found.partitions.map(({ leader }) => leader) });
      if (this.forbidden.has(topic)) this.#refusals.set(topic, refused('Metadata', 29, { topic }));
      else this.#refusals.delete(topic);
    }
    for (const topic of topics) if (this.#refusals.has(topic)) throw this.#refusals.get(topic)!;
    return true;
  }

  async send<T>(nodeId: number, call: Call<T>): Promise<T> {
    if (call.apiName === 'Fetch') return (await this.#fetch(nodeId, call)) as T;
    const { start, high } = this.range;
    const isFirst = this.#looks++ % 2 === 0;
    await this.onSend(call.apiName);
    return [{ error: 0, offset: isFirst ? start : high }] as T;
  }

  async #fetch(nodeId: number, call: Call<unknown>): Promise<unknown> {
    const { maxWaitMs, maxBytes, asked } = this.#asked(call);
    this.fetches.push(asked.map(({ topic, partition, offset }) => `${topic}/${partition}@${offset}`).join(' '));
    await this.onSend('Fetch');
    const deadline = performance.now() + maxWaitMs;
    for (;;) {
      let left = maxBytes;
      const partitions = asked.map((of): FetchedPartition => {
        const answer = this.#answer(nodeId, of, left);
        left -= answer.bytes.length;
        return answer;
      });
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || partitions.some(({ error, bytes }) => error !== 0 || bytes.length > 0))
        return { error: 0, partitions: together(partitions) };
      await wait(leftMs, this.#changed.signal);
    }
  }

  #answer(nodeId: number, of: Asked, left: number): FetchedPartition {
    const { id, topic, partition, offset, most } = of;
    const current = this.#topics.get(topic);
    if (current?.id !== id) return { ...EMPTY, topic, partition, error: UNKNOWN_TOPIC_ID };
    const found = current.partitions[partition]!;
    const error = found.leader === nodeId ? (found.error ?? 0) : REPLICA_NOT_LEADER;
    const bytes: Buffer[] = [];
    let size = 0;
    for (const batch of error === 0 && left > 0 ? found.batches.slice(offset) : []) {
      if (size > 0 && size + batch.length > Math.min(left, most)) break;
      bytes.push(batch);
      size += batch.length;
    }
    const end = found.batches.length;
    const rest = { highWatermark: end, lastStableOffset: end, aborted: [] };
    return { topic, partition, error, bytes: Buffer.concat(bytes), ...rest };
  }

  #asked(call: Call<unknown>): {
    readonly maxWaitMs: number;
    readonly maxBytes: number;
    readonly asked: readonly Asked[];
  } {
    const body = new ByteReader(encoded(call), 1 + 4); // tags of the header, replica
    const [maxWaitMs, , maxBytes] = [body.int32(), body.int32(), body.int32()];
    body.at += 1 + 4 + 4; // isolation, session
    const asked = body.compactArray(() => {
      const id = body.uuid();
      const topic = this.#names[Buffer.from(id, 'base64url')[0]! - 1]!;
      const partitions = body.compactArray(() => {
        const partition = body.int32();
        body.at += 4; // leader epoch
        const offset = body.int64();
        body.at += 4 + 8; // last epoch, start of the log
        const most = body.int32();
        body.tags();
        return { id, topic, partition, offset, most };
      });
      body.tags();
      return partitions;
    });
    return { maxWaitMs, maxBytes, asked: asked.flat() };
  }
}

interface Asked {
  readonly id: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly most: number;
}

function encoded(call: Call<unknown>): Buffer {
  const writer = new ByteWriter(Buffer.alloc(1 << 16));
  call.encode(writer);
  return writer.done();
}

/** The bytes of an answer are one piece of memory. */
function together(partitions: readonly FetchedPartition[]): FetchedPartition[] {
  const memory = Buffer.allocUnsafeSlow(partitions.reduce((sum, { bytes }) => sum + bytes.length, 0));
  let at = 0;
  return partitions.map((partition) => {
    const bytes = memory.subarray(at, (at += partition.bytes.copy(memory, at)));
    return { ...partition, bytes };
  });
}
