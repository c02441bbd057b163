import { expect } from '@jest/globals';
import { kafkaLog, type KafkaOptions } from '@headwater/kafka';
import { eventually, uniqueName } from '@headwater/testing';
import type { Log } from '../log/log.js';
import { produce, textRecord, textsByKey } from '../log/log.testing.js';
import { ProcessRunner, type ProcessOptions } from './process-runner.js';
import { parkedTopicOf, stateTopicOf, type ProcessorDefinition } from './processor.js';
import type { OpenStateStore, StateStore } from './state-store.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
export const LATER = { timeoutMs: 40_000, intervalMs: 20 };

/** Makes the broker compact within a second what is not in the active segment. */
export const EAGER_COMPACTION = Object.freeze({
  'segment.ms': '200',
  'min.cleanable.dirty.ratio': '0.001',
  'min.compaction.lag.ms': '0',
  'max.compaction.lag.ms': '1',
  'delete.retention.ms': '0',
});

/** A processor of running sums per key with topics of its own: it takes `1` and `add 1` (as the counting process does). `delete` forgets a key. */
export class Sums {
  readonly name = uniqueName('sums');
  readonly input = uniqueName('input');
  readonly output = uniqueName('output');
  readonly warnings: string[] = [];
  readonly log: Log;
  readonly #closing: (() => Promise<void>)[] = [];
  readonly #expected: Record<string, string[]> = {};
  readonly #last = new Map<string, number>();

  private constructor() {
    this.log = this.openLog();
  }

  static async create(partitions: number, stateConfig: Readonly<Record<string, string>> = {}): Promise<Sums> {
    const sums = new Sums();
    await sums.log.admin.ensureTopics([
      { topic: sums.input, partitions, cleanupPolicy: 'delete' },
      { topic: sums.output, partitions, cleanupPolicy: 'delete' },
      { topic: parkedTopicOf(sums.name), partitions, cleanupPolicy: 'delete' },
      { topic: stateTopicOf(sums.name), partitions, cleanupPolicy: 'compact', config: stateConfig },
    ]);
    return sums;
  }

  openLog(options: Partial<KafkaOptions> = {}): Log {
    const log = kafkaLog({ brokers, ...options });
    this.closing(() => log.close());
    return log;
  }

  closing(close: () => Promise<void>): void {
    this.#closing.push(close);
  }

  definition(change: Partial<ProcessorDefinition> = {}): ProcessorDefinition {
    return {
      name: this.name,
      inputs: [this.input],
      onRecord: ({ key, value }, context) => {
        const name = key!.toString();
        if (value!.toString() === 'delete') return context.state.delete(name);
        const amount = Number(value!.toString().split(' ').at(-1));
        const sum = String(Number(context.state.get(name)?.toString() ?? '0') + amount);
        context.state.put(name, Buffer.from(sum));
        context.send(textRecord(this.output, name, sum));
      },
      ...change,
    };
  }

  run(options: Partial<ProcessOptions> = {}, definition = this.definition()): ProcessRunner {
    const logger = {
      log: () => undefined,
      error: () => undefined,
      warn: (text: string) => void this.warnings.push(text),
    };
    const runner = new ProcessRunner(definition, { log: this.log, logger, ...options });
    this.closing(() => runner.stop());
    return runner;
  }

  /** Adds to each key, and notes what the output must be; `delete` forgets the sum. */
  async add(keys: readonly string[], value: number | 'delete' = 1): Promise<void> {
    await produce(
      this.log,
      keys.map((key) => textRecord(this.input, key, String(value))),
    );
    for (const key of keys) {
      if (value === 'delete') this.#last.delete(key);
      else {
        const sum = (this.#last.get(key) ?? 0) + value;
        this.#last.set(key, sum);
        (this.#expected[key] ??= []).push(String(sum));
      }
    }
  }

  /** The output is what one undisturbed pass over the input gives, nothing is parked, and every input offset is committed. */
  async exactly(): Promise<void> {
    const output = async () => expect(await textsByKey(this.log, this.output)).toEqual(this.#expected);
    // Markers land after the answer to a commit: for a moment nothing lags although the input has just grown.
    await eventually(async () => {
      await output();
      for (const { lag } of await this.log.admin.lag(`headwater.${this.name}`, [this.input])) expect(lag).toBe(0);
    }, LATER);
    await output();
    expect(await textsByKey(this.log, parkedTopicOf(this.name))).toEqual({});
  }

  /** The sums that the states must hold now. */
  get sums(): Record<string, string> {
    return Object.fromEntries([...this.#last].map(([key, sum]) => [key, String(sum)] as const).sort(byKey));
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close();
  }
}

export const up = (runner: ProcessRunner): Promise<void> =>
  eventually(() => expect(runner.health().status).toBe('up'), LATER);

/** The user state in all tasks of the runners. */
export async function userState(...runners: readonly ProcessRunner[]): Promise<Record<string, string>> {
  const sums: [string, string][] = [];
  for (const runner of runners) {
    for (const { state } of runner.tasks.values()) {
      for (const [entry, value] of await state.dump())
        if (entry.startsWith('s:')) sums.push([entry.slice(2), Buffer.from(value, 'base64').toString()]);
    }
  }
  return Object.fromEntries(sums.sort(byKey));
}

export interface Applied {
  /** Names of the entries that a store was given since it was opened, in order. */
  readonly entries: string[];
  cleared: number;
  /** The stamps that the stores began with. */
  readonly opened: number[];
}

/** A store that tells what it was given. */
export function observed(open: OpenStateStore): { readonly open: OpenStateStore; readonly applied: Applied } {
  const applied: Applied = { entries: [], cleared: 0, opened: [] };
  return {
    applied,
    open: async (task) => {
      const store = await open(task);
      applied.opened.push(store.stamp);
      const watching: StateStore = {
        get stamp() {
          return store.stamp;
        },
        get savedAtMs() {
          return store.savedAtMs ?? 0;
        },
        get: (entry) => store.get(entry),
        entries: (prefix) => store.entries(prefix),
        apply(entries, stamp) {
          const taken = [...entries];
          applied.entries.push(...taken.map(([entry]) => String(entry)));
          return store.apply(taken, stamp);
        },
        clear() {
          applied.cleared++;
          return store.clear();
        },
        close: () => store.close(),
      };
      return watching;
    },
  };
}

const byKey = ([a]: readonly [string, string], [b]: readonly [string, string]): number => (a < b ? -1 : 1);
