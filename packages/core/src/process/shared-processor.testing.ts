import { expect } from '@jest/globals';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy, type FaultProxy, settledOffsets, uniqueName } from '@headwater/testing';
import type { Clock } from '../clock/clock.js';
import type { GroupOptions, Log, LogRecord, PartitionOffset, TopicPartition, WriterOptions } from '../log/log.js';
import { produce, textRecord, textsByKey } from '../log/log.testing.js';
import { ProcessRunner } from './process-runner.js';
import { groupOf, parkedTopicOf, stateTopicOf } from './processor.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const KEYS = Array.from({ length: 20 }, (_, i) => `key-${i}`);
export const PARTITIONS = [0, 1, 2, 3];
export const LATER = { timeoutMs: 40_000, intervalMs: 10 };

export interface MemberOptions {
  readonly group?: Partial<GroupOptions>;
  readonly writer?: Partial<WriterOptions>;
  readonly clock?: Clock;
  /** Behind this proxy. */
  readonly proxy?: FaultProxy;
  readonly before?: (record: LogRecord) => void | Promise<void>;
}

/** A processor of running sums per key, for several members in one process, each with connections of its own. */
export class SharedProcessor {
  readonly name = uniqueName('shared');
  readonly input = uniqueName('input');
  readonly output = uniqueName('output');
  readonly log: Log = kafkaLog({ brokers });
  readonly #closing: (() => Promise<void>)[] = [() => this.log.close()];
  #produced = 0;

  static async create(): Promise<SharedProcessor> {
    const shared = new SharedProcessor();
    const partitions = PARTITIONS.length;
    await shared.log.admin.ensureTopics([
      { topic: shared.input, partitions, cleanupPolicy: 'delete' },
      { topic: shared.output, partitions, cleanupPolicy: 'delete' },
      { topic: parkedTopicOf(shared.name), partitions, cleanupPolicy: 'delete' },
      { topic: stateTopicOf(shared.name), partitions, cleanupPolicy: 'compact' },
    ]);
    return shared;
  }

  member(options: MemberOptions = {}): Member {
    const member = new Member(this, options);
    this.#closing.push(() => member.close());
    return member;
  }

  async proxy(): Promise<FaultProxy> {
    const [host = '', port = ''] = brokers[0]!.split(':');
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    this.#closing.push(() => proxy.close());
    return proxy;
  }

  /** One more record for each key, so many times. */
  async more(times = 1): Promise<void> {
    const records = KEYS.map((key) => textRecord(this.input, key, 'count'));
    for (let i = 0; i < times; i++) await produce(this.log, records);
    this.#produced += times;
  }

  /** The output is what one undisturbed pass over the input gives, and stays that; nothing is parked, no transaction open. */
  async exactly(others: Record<string, (string | null)[]> = {}): Promise<void> {
    const { log, output } = this;
    const sums = Array.from({ length: this.#produced }, (_, i) => String(i + 1));
    const expected = { ...Object.fromEntries(KEYS.map((key) => [key, sums])), ...others };
    await eventually(async () => expect(await textsByKey(log, output)).toEqual(expected), LATER);
    for (const topic of [output, stateTopicOf(this.name)]) await settledOffsets(log, topic, LATER);
    expect(await textsByKey(log, output)).toEqual(expected);
    expect(await textsByKey(log, parkedTopicOf(this.name))).toEqual({});
  }

  /** Where the log of each partition of the input ends: with the marker of the last transaction. */
  async ends(): Promise<readonly number[]> {
    const offsets = await this.log.admin.offsets(this.input);
    return offsets.toSorted((a, b) => a.partition - b.partition).map(({ high }) => high - 1);
  }

  committed(): Promise<readonly PartitionOffset[]> {
    const inputs = PARTITIONS.map((partition): TopicPartition => ({ topic: this.input, partition }));
    return this.log.admin.committedOffsets(groupOf(this.name), inputs);
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close();
  }
}

export class Member {
  readonly handled: string[] = [];
  readonly warnings: string[] = [];
  readonly runner: ProcessRunner;
  readonly #log: Log;

  constructor({ name, input, output }: SharedProcessor, { group, writer, clock, proxy, before }: MemberOptions) {
    const own = kafkaLog({ brokers, requestTimeoutMs: 2_000, ...(proxy ? { connect: proxy.connect } : {}) });
    this.#log = own;
    this.runner = new ProcessRunner(
      {
        name,
        inputs: [input],
        onRecord: async (record, context) => {
          this.handled.push(`${record.partition}/${record.offset}`);
          await before?.(record);
          const key = record.key!.toString();
          const [kind, at] = record.value!.toString().split(' ');
          if (kind === 'alarm') return context.timers.set(key, Number(at));
          const sum = String(Number(context.state.get(key)?.toString() ?? '0') + 1);
          context.state.put(key, Buffer.from(sum));
          context.send(textRecord(output, key, sum));
        },
        onTimer: (timer, context) => context.send(textRecord(output, timer.id, `${timer.atMs} ${context.now}`)),
      },
      {
        log: {
          ...own,
          group: (of) => own.group({ ...of, ...group }),
          writer: (of) => own.writer({ ...of, ...writer }),
        },
        logger: { log: () => undefined, error: () => undefined, warn: (text) => void this.warnings.push(text) },
        ...(clock ? { clock } : {}),
      },
    );
  }

  get partitions(): number[] {
    return [...this.runner.tasks.keys()].sort((a, b) => a - b);
  }

  up(): Promise<void> {
    return eventually(() => expect(this.runner.health().status).toBe('up'), LATER);
  }

  async close(): Promise<void> {
    await this.runner.stop();
    await this.#log.close();
  }
}

/** The members share the four partitions evenly. */
export function evenly(...members: readonly Member[]): Promise<void> {
  return eventually(
    () =>
      expect(members.map(({ partitions }) => partitions.length)).toEqual(
        members.map(() => PARTITIONS.length / members.length),
      ),
    LATER,
  );
}
