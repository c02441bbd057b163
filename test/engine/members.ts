import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from '@jest/globals';
import {
  groupOf,
  parkedTopicOf,
  stateTopicOf,
  type GroupOptions,
  type Log,
  type OutRecord,
  type WriterOptions,
} from '@headwater/core';
import { eventually, settledOffsets, uniqueName } from '@headwater/testing';
import { readAll } from '../bank.js';

const script = fileURLToPath(new URL('./counting-process.mjs', import.meta.url));
const brokers = process.env['KAFKA_BROKERS']!.split(',');
export const PARTITIONS = Array.from({ length: 6 }, (_, n) => n);
const KEYS = Array.from({ length: 60 }, (_, i) => `key-${i}`);
const EVERY_MS = 50;
export const PATIENT = { timeoutMs: 60_000, intervalMs: 10 };

export interface Handled {
  readonly partition: number;
  readonly offset: number;
  /** When this process heard of it, on its monotonic clock. */
  readonly at: number;
}

export interface MemberOptions {
  readonly group?: Partial<GroupOptions>;
  readonly writer?: Partial<WriterOptions>;
  /** What `stall` does to it: its event loop is blocked, or it is stopped (SIGSTOP) until `signal('SIGCONT')`. */
  readonly stalls?: 'blocked' | 'stopped';
}

/** A counting processor that several processes share, under load. */
export class SharedProcessor {
  readonly name = uniqueName('shared');
  readonly input = uniqueName('input');
  readonly output = uniqueName('output');
  readonly members: MemberProcess[] = [];
  readonly #log: Log;
  readonly #sums = new Map<string, number[]>();
  #loading: Promise<void> | undefined;
  #loaded = false;

  private constructor(log: Log) {
    this.#log = log;
  }

  static async create(log: Log): Promise<SharedProcessor> {
    const shared = new SharedProcessor(log);
    const partitions = PARTITIONS.length;
    await log.admin.ensureTopics([
      { topic: shared.input, partitions, cleanupPolicy: 'delete' },
      { topic: shared.output, partitions, cleanupPolicy: 'delete' },
      { topic: parkedTopicOf(shared.name), partitions, cleanupPolicy: 'delete' },
      { topic: stateTopicOf(shared.name), partitions, cleanupPolicy: 'compact' },
    ]);
    return shared;
  }

  /** Starts a process; resolves when it has its partitions. */
  async start(options: MemberOptions = {}): Promise<MemberProcess> {
    const { name, input, output } = this;
    const instanceId = String(this.members.length);
    const member = new MemberProcess({ brokers, name, input, output, instanceId, trace: true, ...options });
    this.members.push(member);
    await member.says('up\n');
    return member;
  }

  /** Resolves when every live member handles its even share of the partitions; since when, on the monotonic clock. */
  async isShared(): Promise<number> {
    const live = this.members.filter((member) => member.isLive);
    let since = performance.now();
    await eventually(() => {
      const shares = live.map((member) => member.partitionsSince(since));
      // Seen at two members: the hand-over was under way.
      if (shares.flat().length > PARTITIONS.length) since = performance.now();
      expect(shares.map(({ length }) => length)).toEqual(live.map(() => PARTITIONS.length / live.length));
    }, PATIENT);
    return since;
  }

  get handled(): Handled[] {
    return this.members.flatMap((member) => member.handled);
  }

  /** Writes records for all partitions, time and again, until `endLoad`. */
  load(): void {
    const writer = this.#log.writer({ transactionalId: uniqueName('load') });
    this.#loading = (async () => {
      await writer.fence();
      while (!this.#loaded) {
        const records = KEYS.map((key): OutRecord => {
          const sums = this.#sums.get(key) ?? [];
          this.#sums.set(key, [...sums, (sums.at(-1) ?? 0) + sums.length + 1]);
          return { topic: this.input, key: Buffer.from(key), value: Buffer.from(`add ${sums.length + 1}`) };
        });
        expect((await writer.transact(records)).outcome).toBe('committed');
        await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      }
      await writer.close();
    })();
  }

  /**
   * One record for each of the partitions that stalls whom it stalls, for so long, in the middle of its handler: it goes on with work in its hands that
   * is not committed.
   */
  async stall(partitions: readonly number[], ms: number): Promise<void> {
    const writer = this.#log.writer({ transactionalId: uniqueName('stall') });
    await writer.fence();
    const records = partitions.map((partition): OutRecord => {
      const key = `stall-${partition}`;
      this.#sums.set(key, [ms]);
      return { topic: this.input, partition, key: Buffer.from(key), value: Buffer.from(`stall ${ms}`) };
    });
    expect((await writer.transact(records)).outcome).toBe('committed');
    await writer.close();
  }

  /** Ends the load; the output is then what one undisturbed pass gives, the offsets are at the end, and no transaction is open. */
  async expectExactly(): Promise<void> {
    await this.#endLoad();
    const inputs = PARTITIONS.map((partition) => ({ topic: this.input, partition }));
    const input = await readAll(this.#log, this.input);
    await eventually(async () => {
      const committed = await this.#log.admin.committedOffsets(groupOf(this.name), inputs);
      for (const { partition, next } of committed)
        expect(next).toBeGreaterThan(input.filter((of) => of.partition === partition).at(-1)!.offset);
    }, PATIENT);
    for (const topic of [this.output, stateTopicOf(this.name)]) await settledOffsets(this.#log, topic, PATIENT);
    const seen = new Map<string, number[]>();
    for (const { key, value } of await readAll(this.#log, this.output))
      seen.set(String(key), [...(seen.get(String(key)) ?? []), Number(String(value))]);
    expect(Object.fromEntries(seen)).toEqual(Object.fromEntries(this.#sums));
    expect(await readAll(this.#log, parkedTopicOf(this.name))).toEqual([]);
  }

  async close(): Promise<void> {
    await this.#endLoad();
    for (const member of this.members) await member.kill();
  }

  async #endLoad(): Promise<void> {
    this.#loaded = true;
    await this.#loading;
  }
}

export class MemberProcess {
  readonly handled: Handled[] = [];
  readonly exited: Promise<[code: number | null, signal: string | null]>;
  readonly #child: ChildProcess;
  #said = '';
  #line = '';

  constructor(options: object) {
    this.#child = spawn(process.execPath, [script, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stderr!.on('data', (chunk: Buffer) => (this.#said += String(chunk)));
    this.#child.stdout!.on('data', (chunk: Buffer) => this.#read(String(chunk)));
    this.exited = once(this.#child, 'close') as Promise<[number | null, string | null]>;
  }

  get isLive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  says(text: string): Promise<void> {
    return eventually(() => expect(this.#said).toContain(text), PATIENT);
  }

  signal(signal: 'SIGCONT' | 'SIGTERM'): void {
    this.#child.kill(signal);
  }

  /** Resolves when it has handled a record of each of the partitions after `since`. */
  handles(partitions: readonly number[], since = performance.now()): Promise<void> {
    return eventually(
      () => expect(this.partitionsSince(since)).toEqual(expect.arrayContaining([...partitions])),
      PATIENT,
    );
  }

  partitionsSince(since: number): number[] {
    return [...new Set(this.handled.filter(({ at }) => at > since).map(({ partition }) => partition))].sort(
      (a, b) => a - b,
    );
  }

  async kill(): Promise<void> {
    if (this.isLive) this.#child.kill('SIGKILL');
    await this.exited;
  }

  #read(chunk: string): void {
    const at = performance.now();
    const lines = (this.#line + chunk).split('\n');
    this.#line = lines.pop()!;
    for (const line of lines) {
      const [, partition, offset] = /^handled (\d+)\/(\d+)$/.exec(line) ?? [];
      if (offset === undefined) this.#said += `${line}\n`;
      else this.handled.push({ partition: Number(partition), offset: Number(offset), at });
    }
  }
}
