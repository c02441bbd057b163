import { kafkaLog, type KafkaOptions } from '@headwater/kafka';
import { eventually, faultProxy, uniqueName, type FaultProxy } from '@headwater/testing';
import { expect } from '@jest/globals';
import { errorMessage } from '../errors/headwater.error.js';
import type { Log, OutRecord } from '../log/log.js';
import { committedRecords, textRecord, textsByKey } from '../log/log.testing.js';
import {
  controlTopicOf,
  parkedTopicOf,
  stateTopicOf,
  type ProcessContext,
  type ProcessorDefinition,
} from './processor.js';
import { ProcessRunner, type ProcessOptions } from './process-runner.js';

export const brokers = process.env['KAFKA_BROKERS']!.split(',');

const PATIENCE = { timeoutMs: 40_000, intervalMs: 50 };

/** One processor of running sums on topics of its own, on real brokers; `close` stops everything that was started with it. */
export class Scene {
  readonly name = uniqueName('counting');
  readonly input = uniqueName('input');
  readonly output = uniqueName('output');
  /** What the runners logged as warnings and as errors. */
  readonly warnings: string[] = [];
  readonly errors: string[] = [];
  readonly log: Log;
  readonly #closing: (() => Promise<void>)[] = [];

  constructor() {
    this.log = this.openLog();
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close();
  }

  onClose(close: () => Promise<void>): void {
    this.#closing.push(close);
  }

  openLog(options: Partial<KafkaOptions> = {}): Log {
    const opened = kafkaLog({ brokers, ...options });
    this.onClose(() => opened.close());
    return opened;
  }

  /** A log whose requests pass a proxy. */
  async faultyLog(requestTimeoutMs = 1_000): Promise<{ readonly log: Log; readonly proxy: FaultProxy }> {
    const [host, port] = brokers[0]!.split(':') as [string, string];
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    this.onClose(() => proxy.close());
    const log = this.openLog({ connect: () => ({ host: proxy.host, port: proxy.port }), requestTimeoutMs });
    return { log, proxy };
  }

  async createTopics(partitions: number, inputs: readonly string[] = [this.input]): Promise<void> {
    await this.log.admin.ensureTopics([
      ...[...inputs, this.output, parkedTopicOf(this.name), controlTopicOf(this.name)].map(
        (topic) => ({ topic, partitions, cleanupPolicy: 'delete' }) as const,
      ),
      { topic: stateTopicOf(this.name), partitions, cleanupPolicy: 'compact' },
    ]);
  }

  /** The running sum per key: its state, and one output per record. The value `delete` forgets the key. */
  readonly count = (key: string, value: string, context: ProcessContext): void => {
    if (value === 'delete') return context.state.delete(key);
    const sum = String(Number(context.state.get(key)?.toString() ?? '0') + Number(value));
    context.state.put(key, Buffer.from(sum));
    context.send(textRecord(this.output, key, sum));
  };

  definition(change: Partial<ProcessorDefinition> = {}): ProcessorDefinition {
    return {
      name: this.name,
      inputs: [this.input],
      onRecord: (record, context) => this.count(record.key!.toString(), record.value!.toString(), context),
      ...change,
    };
  }

  run(change: Partial<ProcessorDefinition> = {}, options: Partial<ProcessOptions> = {}): ProcessRunner {
    const logger = {
      log: () => undefined,
      warn: (text: string) => void this.warnings.push(text),
      error: (text: string) => void this.errors.push(text),
    };
    const runner = new ProcessRunner(this.definition(change), { log: this.log, logger, ...options });
    this.onClose(() => runner.stop());
    return runner;
  }

  record(key: string | null, value: string | null): OutRecord {
    return textRecord(this.input, key, value);
  }

  /** `each` ones for every key. */
  ones(keys: readonly string[], each: number): OutRecord[] {
    return Array.from({ length: each }, () => keys).flatMap((all) => all.map((key) => this.record(key, '1')));
  }

  async status(runner: ProcessRunner, status: 'up' | 'down'): Promise<void> {
    await eventually(() => {
      if (runner.health().status !== status) throw new Error(JSON.stringify(runner.health()));
    }, PATIENCE);
  }

  /** Waits until exactly this can be read of the output, per key in order. */
  seen(expected: Record<string, (string | null)[]>): Promise<void> {
    return eventually(async () => {
      const found = await textsByKey(this.log, this.output);
      expect({ found, errors: this.errors }).toEqual({ found: expected, errors: this.errors });
    }, PATIENCE);
  }

  /** The parked topic as key, value and the named headers. */
  async parked(...headers: string[]): Promise<(string | null | undefined)[][]> {
    return (await committedRecords(this.log, parkedTopicOf(this.name))).map((record) => [
      record.key?.toString() ?? null,
      record.value?.toString() ?? null,
      ...headers.map((name) => record.headers.find(([header]) => header === name)?.[1]?.toString()),
    ]);
  }
}

export const sums = (keys: readonly string[], each: number): Record<string, string[]> =>
  Object.fromEntries(keys.map((key) => [key, Array.from({ length: each }, (_, i) => String(i + 1))]));

export const messageOf = (promise: Promise<unknown>): Promise<string> => promise.then(() => 'resolved', errorMessage);
