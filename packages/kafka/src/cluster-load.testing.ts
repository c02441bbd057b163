import { setInterval } from 'node:timers/promises';
import { expect } from '@jest/globals';
import {
  ProcessRunner,
  groupOf,
  parkedTopicOf,
  stateTopicOf,
  type Log,
  type LogReader,
  type LogWriter,
  type Outcome,
} from '@headwater/core';
import { eventually, type KafkaCluster, settledOffsets } from '@headwater/testing';
import { committedRecords, unique } from './broker.testing.js';
import { kafkaLog } from './kafka-log.js';

const PARTITIONS = 3;
const KEYS = ['a', 'b', 'c', 'd', 'e', 'f'];
const INSTANCE = 'one';

export interface ClusterLoadOptions {
  /** Milliseconds between two transactions of the feeder. */
  readonly everyMs?: number;
  readonly topicConfig?: Readonly<Record<string, string>>;
  /** How long the cluster itself takes no writes: allowed on top of the 30 seconds to recover in. */
  readonly stormMs?: number;
}

/**
 * A writer that feeds numbered records per key, a stateful processor that copies them with their count, and a reader that follows both
 * topics, all through the cluster's proxy and for as long as a test breaks things.
 */
export class ClusterLoad {
  readonly name = unique('copy');
  readonly input = unique('input');
  readonly output = unique('output');
  readonly feederId = unique('feeder');
  /** Transactional ids in use here, those of the second producers included. */
  readonly transactionalIds = [this.feederId, `${groupOf(this.name)}.${INSTANCE}`].flatMap((id) => [id, `${id}~2`]);
  readonly groupId = groupOf(this.name);
  readonly clientId = unique('load');
  readonly readerClientId = unique('load-reader');
  readonly warnings: string[] = [];
  /** How the feeder's transactions ended. */
  readonly ends: Outcome[] = [];
  readonly log: Log;
  /** For the reader alone: nobody's writes tell it who leads what. */
  readonly #readerLog: Log;
  /** The longest time in which the reader saw no output. */
  longestGapMs = 0;
  readonly #seen = new Map<string, Map<string, string[]>>();
  readonly #options: ClusterLoadOptions;
  #runner: ProcessRunner | undefined;
  #fed = 0;
  #feeding = true;
  #following = true;
  #work: readonly Promise<void>[] = [];

  private constructor(cluster: KafkaCluster, options: ClusterLoadOptions) {
    const { clientId } = this;
    this.#options = options;
    const reached = { brokers: cluster.brokers, connect: cluster.proxy.connect, requestTimeoutMs: 2_000 };
    this.log = kafkaLog({ ...reached, clientId });
    this.#readerLog = kafkaLog({ ...reached, clientId: this.readerClientId });
  }

  /** Runs `scenario` under load, then expects exactly f(input), whatever happened. Heals the cluster in any case. */
  static async under(
    cluster: KafkaCluster,
    scenario: (load: ClusterLoad) => Promise<void>,
    options: ClusterLoadOptions = {},
  ): Promise<void> {
    const load = new ClusterLoad(cluster, options);
    try {
      await load.#start();
      await load.progress();
      await scenario(load);
      await load.progress();
      await cluster.heal(load.topics);
      await load.#expectExactly();
    } finally {
      cluster.proxy.decide = () => undefined;
      await cluster.proxy.release();
      await cluster.heal([]);
      await load.#stop();
    }
  }

  get topics(): string[] {
    return [this.input, this.output, stateTopicOf(this.name), parkedTopicOf(this.name)];
  }

  /** Resolves when everybody has done something more: fed, copied and read. */
  async progress(): Promise<void> {
    const [fed, copied] = [this.#fed, this.#count(this.output)];
    await eventually(
      () => {
        const [more, read] = [this.#fed - fed, this.#count(this.output) - copied];
        const ended = this.ends.slice(-5).map(({ outcome }) => outcome);
        if (more < 5 || read < 5 * KEYS.length)
          throw new Error(`${more} fed, ${read} read, ${ended.join(', ')}; ${this.warnings.join('\n')}`);
      },
      { timeoutMs: 60_000 },
    );
  }

  async #start(): Promise<void> {
    const [input, output, state, parked] = this.topics as [string, string, string, string];
    const config = this.#options.topicConfig ?? {};
    await this.log.admin.ensureTopics([
      ...[input, output, parked].map((topic) => ({
        topic,
        partitions: PARTITIONS,
        cleanupPolicy: 'delete' as const,
        config,
      })),
      { topic: state, partitions: PARTITIONS, cleanupPolicy: 'compact', config },
    ]);
    this.#runner = new ProcessRunner(
      {
        name: this.name,
        inputs: [input],
        onRecord({ key, value }, context) {
          const count = String(Number(context.state.get(String(key)) ?? 0) + 1);
          context.state.put(String(key), Buffer.from(count));
          context.send({ topic: output, key, value: Buffer.from(`${String(value)} ${count}`) });
        },
      },
      {
        log: this.log,
        instanceId: INSTANCE,
        logger: {
          log: () => undefined,
          warn: (line) => this.warnings.push(line),
          error: (line) => this.warnings.push(line),
        },
      },
    );
    const reader = this.#readerLog.reader();
    for (const topic of [input, output])
      for (let partition = 0; partition < PARTITIONS; partition++) reader.seek(topic, partition, 0);
    const writer = this.log.writer({ transactionalId: this.feederId });
    await writer.fence();
    this.#work = [this.#feed(writer), this.#follow(reader)];
  }

  async #feed(writer: LogWriter): Promise<void> {
    for await (const _ of setInterval(this.#options.everyMs ?? 20)) {
      if (!this.#feeding) break;
      const value = Buffer.from(String(this.#fed));
      const records = KEYS.map((key) => ({ topic: this.input, key: Buffer.from(key), value }));
      const end = await writer.transact(records, this.#mark(this.#fed + 1));
      this.ends.push(end);
      if (end.outcome === 'committed') this.#fed++;
      else if (end.outcome === 'unknown') {
        await this.#fence(writer);
        // The truth: the offset moves with the records, or not at all.
        this.#fed = Math.max(this.#fed, await this.#marked());
      } else if (end.fenced === 'writer') await this.#fence(writer);
    }
    await writer.close();
  }

  /** A cluster in trouble may take longer than one call waits. */
  #fence(writer: LogWriter): Promise<void> {
    return eventually(() => writer.fence(), { timeoutMs: 60_000 });
  }

  #mark(next: number) {
    const membership = { groupId: this.feederId, memberId: '', generation: -1 };
    return { membership, offsets: [{ topic: this.input, partition: 0, next }] };
  }

  async #marked(): Promise<number> {
    const [mark] = await this.log.admin.committedOffsets(this.feederId, [{ topic: this.input, partition: 0 }]);
    return mark!.next;
  }

  async #follow(reader: LogReader): Promise<void> {
    let last = performance.now();
    while (this.#following) {
      const batches = await reader.poll({ maxWaitMs: 100 });
      for (const { key, value, topic } of batches.flatMap(({ records }) => records)) {
        const values = this.#of(topic).get(String(key)) ?? [];
        values.push(String(value));
        this.#of(topic).set(String(key), values);
        if (topic !== this.output) continue;
        this.longestGapMs = Math.max(this.longestGapMs, performance.now() - last);
        last = performance.now();
      }
    }
    await reader.close();
  }

  /** Input and output hold what an undisturbed pass gives, in order per key, and so do the offsets; nothing is left open; no stand-still of 30 seconds. */
  async #expectExactly(): Promise<void> {
    this.#feeding = false;
    await this.#work[0];
    const numbers = Array.from({ length: this.#fed }, (_, n) => String(n));
    const fed = Object.fromEntries(KEYS.map((key) => [key, numbers]));
    const copied = Object.fromEntries(KEYS.map((key) => [key, numbers.map((n) => `${n} ${Number(n) + 1}`)]));
    await eventually(() => expect(this.#count(this.output)).toBeGreaterThanOrEqual(this.#fed * KEYS.length), {
      timeoutMs: 60_000,
    });
    for (const topic of this.topics) await settledOffsets(this.log, topic);
    expect(Object.fromEntries(this.#of(this.input))).toEqual(fed);
    expect(Object.fromEntries(this.#of(this.output))).toEqual(copied);
    // Whoever reads it all again finds the same as the one that followed through the faults.
    expect(await committedRecords(this.log, this.input)).toHaveLength(this.#fed * KEYS.length);
    expect(await committedRecords(this.log, this.output)).toHaveLength(this.#fed * KEYS.length);
    expect(await committedRecords(this.log, parkedTopicOf(this.name))).toEqual([]);
    // Offsets came with what they belong to.
    expect(await this.#marked()).toBe(this.#fed);
    const inputs = (await this.log.admin.offsets(this.input)).map(({ topic, partition, high: next }) => ({
      topic,
      partition,
      next,
    }));
    await eventually(async () => expect(await this.log.admin.committedOffsets(this.groupId, inputs)).toEqual(inputs));
    expect(this.longestGapMs).toBeLessThan(30_000 + (this.#options.stormMs ?? 0));
  }

  async #stop(): Promise<void> {
    this.#feeding = false;
    this.#following = false;
    await this.#runner?.stop();
    await Promise.allSettled(this.#work);
    await this.log.close();
    await this.#readerLog.close();
  }

  #of(topic: string): Map<string, string[]> {
    const known = this.#seen.get(topic) ?? new Map<string, string[]>();
    this.#seen.set(topic, known);
    return known;
  }

  #count(topic: string): number {
    return [...this.#of(topic).values()].reduce((sum, values) => sum + values.length, 0);
  }
}
