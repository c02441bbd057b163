import { setMaxListeners } from 'node:events';
import type { Clock } from '@headwater/core';
import { Bell } from './bell.js';
import { closed, unreachable } from './refusals.js';

/** A request a client is about to make. `end` commits or aborts; `offsets` adds a group's offsets to a transaction. */
export interface LogCall {
  readonly request:
    | 'fence'
    | 'append'
    | 'offsets'
    | 'commit'
    | 'abort'
    | 'send'
    | 'poll'
    | 'join'
    | 'heartbeat'
    | 'leave'
    | 'read-offsets'
    | 'admin';
  readonly transactionalId?: string;
  readonly groupId?: string;
}

/**
 * What goes wrong with one request. `lose-request`: nothing happens and nobody answers. `lose-answer`: it happens and nobody answers.
 * `late-request`: nobody answers, and it happens `lateMs` after it was sent, when its sender has given up perhaps. `refuse`: nothing happens, the answer is an error.
 */
export type CallFault =
  | { readonly act: 'lose-request' | 'lose-answer' }
  | { readonly act: 'late-request'; readonly lateMs: number }
  | { readonly act: 'refuse'; readonly error: Error };

export interface MemoryClientOptions {
  /** The clock of the client's machine. Default: that of the log. */
  readonly clock?: Clock;
  /** Asked once per request: what goes wrong with it. Default: nothing. */
  readonly fault?: (call: LogCall) => CallFault | undefined;
  /** How long a request, and its answer, are on their way. Default 0: none of them waits. */
  readonly latencyMs?: () => number;
  /** How long the client waits for an answer that does not come. Default 1,000. */
  readonly requestTimeoutMs?: number;
}

/** Something that ends with its connection: groups leave first, so that their work ends while writers and readers still answer. */
export interface Adopted {
  readonly order: 0 | 1;
  stop(): Promise<void>;
}

/**
 * A client's way to the log, and its process: paused, nothing of it goes on, and its answers wait for it; killed, none of its promises ever
 * settles. Every request passes here, once before it is sent and once when its answer has come.
 */
export class Connection {
  readonly clock: Clock;
  readonly closing = new AbortController();
  readonly #machine: Clock;
  readonly #fault: (call: LogCall) => CallFault | undefined;
  readonly #latencyMs: () => number;
  readonly #requestTimeoutMs: number;
  readonly #adopted = new Set<Adopted>();
  readonly #fate = new Bell();
  readonly #silences = new Set<(silent: boolean) => void>();
  #state: 'running' | 'paused' | 'killed' = 'running';

  constructor(logClock: Clock, options: MemoryClientOptions) {
    // Every reader and member that waits hangs on it.
    setMaxListeners(0, this.closing.signal);
    const machine = options.clock ?? logClock;
    this.#machine = machine;
    this.#fault = options.fault ?? (() => undefined);
    this.#latencyMs = options.latencyMs ?? (() => 0);
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 1_000;
    this.clock = {
      now: () => machine.now(),
      elapsed: () => machine.elapsed(),
      wait: async (ms, signal) => {
        await machine.wait(ms, signal);
        await this.goOn();
      },
      breathe: async () => {
        await machine.breathe();
        await this.goOn();
      },
    };
  }

  /** Sends a request: `serve` is what the log does at the instant it arrives. */
  async request<T>(call: LogCall, serve: () => T): Promise<T> {
    await this.goOn();
    this.assertOpen();
    const fault = this.#fault(call);
    await this.#travel();
    if (fault?.act === 'refuse') throw fault.error;
    if (fault !== undefined) {
      if (fault.act === 'late-request') void this.#machine.wait(fault.lateMs).then(() => attempt(serve));
      if (fault.act === 'lose-answer') attempt(serve);
      await this.clock.wait(this.#requestTimeoutMs, this.closing.signal);
      throw unreachable(call.request);
    }
    const answer = attempt(serve);
    await this.#travel();
    await this.goOn();
    return answer();
  }

  /** Repeats a request that can be answered `undefined`, not yet, at every ring of the bell. */
  async ask<T>(call: LogCall, bell: Bell, serve: () => T | undefined): Promise<T> {
    for (;;) {
      const answer = await this.request(call, serve);
      if (answer !== undefined) return answer;
      await this.rest(bell, this.#requestTimeoutMs);
    }
  }

  /** Waits for the bell, at most `ms`. */
  async rest(bell: Bell, ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
    await bell.wait(this.#machine, ms, this.closing.signal, ...signals);
    await this.goOn();
  }

  /** Resolves when the process runs: at once, when it is resumed, or never. */
  async goOn(): Promise<void> {
    while (this.#state !== 'running') await this.#fate.next();
  }

  pause(): void {
    if (this.#state === 'running') this.#change('paused');
  }

  resume(): void {
    if (this.#state === 'paused') this.#change('running');
  }

  kill(): void {
    this.#change('killed');
  }

  /** Calls back when the process falls silent and when it speaks again. Returns how to end that. */
  onSilence(heard: (silent: boolean) => void): () => void {
    this.#silences.add(heard);
    if (this.#state !== 'running') heard(true);
    return () => void this.#silences.delete(heard);
  }

  adopt(adopted: Adopted): void {
    this.#adopted.add(adopted);
  }

  dismiss(adopted: Adopted): void {
    this.#adopted.delete(adopted);
  }

  assertOpen(): void {
    if (this.closing.signal.aborted) throw closed();
  }

  async close(): Promise<void> {
    if (this.#state !== 'killed') {
      for (const order of [0, 1])
        await Promise.all([...this.#adopted].filter((of) => of.order === order).map((of) => of.stop()));
    }
    this.closing.abort();
  }

  #change(state: 'running' | 'paused' | 'killed'): void {
    const wasSilent = this.#state !== 'running';
    this.#state = state;
    const silent = state !== 'running';
    if (silent !== wasSilent) for (const heard of this.#silences) heard(silent);
    this.#fate.ring();
  }

  async #travel(): Promise<void> {
    const ms = this.#latencyMs();
    if (ms > 0) await this.#machine.wait(ms);
  }
}

/** Does it now, and tells later what came of it: the answer may be on its way, or lost. */
function attempt<T>(serve: () => T): () => T {
  try {
    const value = serve();
    return () => value;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}
