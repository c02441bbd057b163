import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { controlTopicOf, groupOf, parkedTopicOf, stateTopicOf, type LogRecord, type OutRecord } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import {
  eventually,
  type Fault,
  faultProxy,
  type FaultProxy,
  type ProxiedRequest,
  settledOffsets,
  uniqueName,
} from '@headwater/testing';
import { readAll } from '../bank.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const script = fileURLToPath(new URL('./counting-process.mjs', import.meta.url));
const log = kafkaLog({ brokers });
const PARTITIONS = [0, 1];
const RECORDS = 400;
/** What the processes put in one transaction at most, and how far they handle ahead of it. */
const BATCH = 40;
const AHEAD = BATCH;

afterAll(() => log.close());

interface Child {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
}

/** A processor with topics of its own, behind a proxy of its own. */
class Processor {
  readonly name = uniqueName('engine');
  readonly input = uniqueName('input');
  readonly output = uniqueName('output');
  /** What all its processes wrote. */
  said = '';
  #child: Child | undefined;
  readonly #proxy: FaultProxy;

  private constructor(proxy: FaultProxy) {
    this.#proxy = proxy;
  }

  /** Runs `scenario` on a processor with its whole input written, and takes everything down behind it. */
  static async with(scenario: (processor: Processor) => Promise<void>): Promise<void> {
    const [host = '', port = ''] = brokers[0]!.split(':');
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    const processor = new Processor(proxy);
    try {
      await processor.#prepare();
      await scenario(processor);
    } finally {
      await processor.kill();
      await proxy.close();
    }
  }

  start(): void {
    const { name, input, output } = this;
    const options = { brokers, name, input, output, instanceId: 'one', clientId: name };
    const proxied = { port: this.#proxy.port, requestTimeoutMs: 1_000, trace: true };
    const child = spawn(process.execPath, [script, JSON.stringify({ ...options, ...proxied })], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (this.said += String(chunk)));
    this.#child = { process: child, exited: once(child, 'exit') };
  }

  /** kill -9, signalled before this returns. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    child?.process.kill('SIGKILL');
    await child?.exited;
  }

  /** What happens to the processor's requests from now on. */
  decide(rule: (request: ProxiedRequest) => Fault | undefined): void {
    this.#proxy.decide = (request) => (request.clientId === this.name ? rule(request) : undefined);
  }

  /** How often each input record was handled, by partition/offset. */
  handled(): Map<string, number> {
    const times = new Map<string, number>();
    for (const [, at] of this.said.matchAll(/^handled (\S+)$/gm)) times.set(at!, (times.get(at!) ?? 0) + 1);
    return times;
  }

  /** The outputs, the state store and the committed offsets equal what one undisturbed pass over the input gives. */
  async expectExactly(): Promise<void> {
    const input = await readAll(log, this.input);
    expect(input).toHaveLength(RECORDS);
    const sums = new Map<string, number[]>();
    for (const { key, value } of input) {
      const known = sums.get(text(key)) ?? [];
      sums.set(text(key), [...known, (known.at(-1) ?? 0) + Number(text(value).slice('add '.length))]);
    }
    // Behind the marker of the last transaction: a position that moved over offsets without records is committed, too.
    const ends = (await settledOffsets(log, this.input)).map(({ topic, partition, high }) => ({
      topic,
      partition,
      next: high,
    }));
    const inputs = PARTITIONS.map((partition) => ({ topic: this.input, partition }));
    await eventually(async () => expect(await log.admin.committedOffsets(groupOf(this.name), inputs)).toEqual(ends), {
      timeoutMs: 60_000,
    });
    const state = stateTopicOf(this.name);
    for (const topic of [this.output, state]) await settledOffsets(log, topic);
    const seen = new Map<string, number[]>();
    for (const { key, value } of await readAll(log, this.output))
      seen.set(text(key), [...(seen.get(text(key)) ?? []), Number(text(value))]);
    expect(sorted(seen)).toEqual(sorted(sums));
    expect(await readAll(log, parkedTopicOf(this.name))).toEqual([]);
    const entries = new Map<string, string>();
    const ofOthers = new Set([`o:${controlTopicOf(this.name)}`, `o:${state}`, 'v:topology']);
    for (const { partition, key, value } of await readAll(log, state))
      if (!ofOthers.has(text(key)))
        entries.set(text(key).startsWith('o:') ? `${text(key)}/${partition}` : text(key), text(value));
    expect(sorted(entries)).toEqual(
      sorted([
        ...[...sums].map(([key, of]) => [`s:${key}`, String(of.at(-1))] as const),
        ...ends.map(({ partition, next }) => [`o:${this.input}/${partition}`, String(next)] as const),
      ]),
    );
  }

  async #prepare(): Promise<void> {
    const partitions = PARTITIONS.length;
    await log.admin.ensureTopics([
      { topic: this.input, partitions, cleanupPolicy: 'delete' },
      { topic: this.output, partitions, cleanupPolicy: 'delete' },
      { topic: parkedTopicOf(this.name), partitions, cleanupPolicy: 'delete' },
      { topic: stateTopicOf(this.name), partitions, cleanupPolicy: 'compact' },
    ]);
    const writer = log.writer({ transactionalId: uniqueName('load') });
    await writer.fence();
    const records = Array.from({ length: RECORDS }, (_, i): OutRecord => {
      return { topic: this.input, key: Buffer.from(`key-${i % 10}`), value: Buffer.from(`add ${i}`) };
    });
    expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
    await writer.close();
  }
}

const text = (bytes: LogRecord['key']): string => bytes!.toString('utf8');

const sorted = <Value>(entries: Iterable<readonly [string, Value]>) =>
  [...entries].sort(([a], [b]) => (a < b ? -1 : 1));

/**
 * Every request a transaction consists of with transaction.version 2. There AddPartitionsToTxn and AddOffsetsToTxn do not exist: Produce and
 * TxnOffsetCommit add what they write to. The third of a kind strikes in the middle of the input, with a state behind it.
 */
const BOUNDARIES = [
  { apiName: 'InitProducerId', nth: 1 },
  { apiName: 'Produce', nth: 3 },
  { apiName: 'TxnOffsetCommit', nth: 3 },
  { apiName: 'EndTxn', nth: 3 },
].flatMap((boundary) => [
  { ...boundary, when: 'before', at: 'request' } as const,
  { ...boundary, when: 'after', at: 'response' } as const,
]);

const LATER = { timeoutMs: 60_000, intervalMs: 5 };

describe('a processor at the boundaries of its requests', () => {
  it.concurrent.each(BOUNDARIES)('S38 has exactly f(input) when killed -9 $when $apiName', ({ apiName, nth, at }) =>
    Processor.with(async (processor) => {
      const seen: string[] = [];
      let dead: Promise<void> | undefined;
      processor.decide((request) => {
        seen.push(request.apiName);
        const count = seen.filter((name) => name === apiName).length;
        return count === nth ? { at, act: 'drop', onStrike: () => (dead ??= processor.kill()) } : undefined;
      });
      processor.start();
      await eventually(() => expect(dead).toBeDefined(), LATER);
      await dead;
      expect(seen).not.toContain('AddPartitionsToTxn');
      expect(seen).not.toContain('AddOffsetsToTxn');
      processor.decide(() => undefined);
      processor.start();
      await processor.expectExactly();
    }),
  );

  /** Nobody was called more than twice, and no more than `most` twice. */
  function expectAgain(handled: readonly number[], most: number): void {
    const again = handled.filter((times) => times !== 1);
    expect(again.filter((times) => times !== 2)).toEqual([]);
    expect(again.length).toBeLessThanOrEqual(most);
  }

  /** Loses every EndTxn from the third on until the writer fences and returns the requests from there on. */
  async function loseThirdEnd(processor: Processor, at: 'request' | 'response') {
    let ends = 0;
    let strikes = 0;
    const after: string[] = [];
    processor.decide((request) => {
      if (strikes > 0 && (after.length > 0 || request.apiName === 'InitProducerId')) {
        after.push(request.apiName);
        return undefined;
      }
      if (request.apiName !== 'EndTxn' || ++ends < 3) return undefined;
      return { at, act: 'drop', onStrike: () => strikes++ };
    });
    processor.start();
    await eventually(() => expect(after).toContain('EndTxn'), LATER);
    expect(strikes).toBeGreaterThan(1);
    await eventually(() => expect(processor.said).toContain('the transaction ended unknown'));
    return after;
  }

  it.concurrent(
    'S40 is unknown without a reply to EndTxn: fences, restores, refetches and runs nothing of it again',
    () =>
      Processor.with(async (processor) => {
        const after = await loseThirdEnd(processor, 'response');
        await processor.expectExactly();
        expect(after.indexOf('OffsetFetch')).toBeGreaterThan(after.indexOf('InitProducerId'));
        expect(after.indexOf('Fetch', after.indexOf('OffsetFetch'))).toBeLessThan(after.indexOf('Produce'));
        const handled = [...processor.handled().values()];
        expect(handled).toHaveLength(RECORDS);
        // Handling runs ahead of the commit by one batch; what it read of that batch is dropped with it.
        expectAgain(handled, AHEAD);
      }),
  );

  it.concurrent(
    'S41 is unknown without an EndTxn request that arrives: as S40, and that batch runs again once, too',
    () =>
      Processor.with(async (processor) => {
        const after = await loseThirdEnd(processor, 'request');
        await processor.expectExactly();
        expect(after.indexOf('OffsetFetch')).toBeGreaterThan(after.indexOf('InitProducerId'));
        expect(after.indexOf('Fetch', after.indexOf('OffsetFetch'))).toBeLessThan(after.indexOf('Produce'));
        const handled = [...processor.handled().values()];
        expect(handled).toHaveLength(RECORDS);
        expectAgain(handled, BATCH + AHEAD);
      }),
  );

  /** Where the second life dies: while it asks for its offsets, while it reads its state, or before it commits anything. */
  const DEATHS = [
    { apiName: 'OffsetFetch', at: 'response' },
    { apiName: 'Fetch', at: 'response' },
    { apiName: 'EndTxn', at: 'request' },
  ] as const;

  it.concurrent.each(DEATHS)(
    'S87 has exactly f(input) when an unknown outcome is followed by a kill -9 at $apiName of the recovery, and by another unknown one',
    ({ apiName, at }) =>
      Processor.with(async (processor) => {
        // The first life: its second transaction stays unknown, applied or not; then it is killed as it recovers.
        let ends = 0;
        let unknown = 0;
        let dead: Promise<void> | undefined;
        let recovers = false;
        processor.decide((request) => {
          if (unknown > 0 && request.apiName === 'InitProducerId') recovers = true;
          if (recovers && request.apiName === apiName)
            return { at, act: 'drop', onStrike: () => (dead ??= processor.kill()) };
          if (recovers || request.apiName !== 'EndTxn' || ++ends < 2) return undefined;
          return { at: 'response', act: 'drop', onStrike: () => unknown++ };
        });
        processor.start();
        await eventually(() => expect(dead).toBeDefined(), LATER);
        await dead;
        expect(unknown).toBeGreaterThan(0);
        // The second life: the first reply it would have within its first second is lost, and so is its first EndTxn.
        const lost: string[] = [];
        processor.decide((request) => {
          const strikes = request.apiName === 'InitProducerId' || request.apiName === 'EndTxn';
          if (!strikes || lost.includes(request.apiName)) return undefined;
          const side = request.apiName === 'EndTxn' ? 'request' : 'response';
          return { at: side, act: 'close', onStrike: () => lost.push(request.apiName) };
        });
        processor.start();
        await processor.expectExactly();
        expect(lost).toEqual(['InitProducerId', 'EndTxn']);
      }),
  );
});
