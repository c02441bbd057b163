import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { eventually } from '@headwater/testing';
import type { CaptureStatus } from './capture.js';
import type { CaptureOptions } from './capture.options.js';

export interface ProcessOptions extends Omit<CaptureOptions, 'log' | 'logger' | 'onError'> {
  readonly brokers: readonly string[];
  /** A proxy in front of the only broker. */
  readonly kafkaPort?: number;
}

export type ProcessStatus = CaptureStatus & { readonly rssBytes: number };

export interface ErrorFact {
  readonly code?: string;
  readonly message: string;
}

interface Told {
  readonly started?: true;
  readonly line?: string;
  readonly error?: ErrorFact;
  readonly halted?: ErrorFact;
  readonly status?: ProcessStatus;
}

/** A capture in a process of its own, to be killed, stopped in its tracks and revived. It ends with the process that started it. */
export class CaptureProcess {
  readonly lines: string[] = [];
  /** Every error it was told of, those that lead to a reconnect included. */
  readonly errors: ErrorFact[] = [];
  /** What it halted with. */
  halted: ErrorFact | undefined;
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  #started = false;
  #statuses: ((status: ProcessStatus) => void)[] = [];

  private constructor(options: ProcessOptions, env: NodeJS.ProcessEnv) {
    const script = fileURLToPath(new URL('./crash-child.testing.mjs', import.meta.url));
    this.#child = fork(script, [JSON.stringify(options)], {
      execArgv: [],
      env,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#gone = new Promise((resolve) => this.#child.once('exit', () => resolve()));
    this.#child.on('message', (told: Told) => this.#hear(told));
  }

  /** Resolves when it streams or waits for its slot. */
  static async start(options: ProcessOptions, env = process.env): Promise<CaptureProcess> {
    const started = new CaptureProcess(options, env);
    await eventually(
      () => {
        if (!started.#started) throw new Error(`not started: ${JSON.stringify(started.halted ?? started.errors)}`);
      },
      { timeoutMs: 30_000 },
    );
    return started;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  status(): Promise<ProcessStatus> {
    if (!this.running) return Promise.reject(new Error(`it has ended: ${JSON.stringify(this.halted ?? this.errors)}`));
    return new Promise((resolve) => {
      this.#statuses.push(resolve);
      this.#child.send('status');
    });
  }

  async until(state: CaptureStatus['state'], timeoutMs = 15_000): Promise<void> {
    await eventually(
      async () => {
        const found = (await this.status()).state;
        if (found !== state) throw new Error(`${found}, not ${state}: ${JSON.stringify(this.errors)}`);
      },
      { timeoutMs },
    );
  }

  /** SIGSTOP: it keeps its connections and says nothing. */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  /** Resolves when it has ended by itself. */
  async ended(): Promise<void> {
    await eventually(() => {
      if (this.running) throw new Error(`still runs: ${JSON.stringify([this.errors, this.lines])}`);
    });
  }

  /** kill -9; may be called twice. */
  async kill(): Promise<void> {
    if (!this.running) return;
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  #hear({ started, line, error, halted, status }: Told): void {
    if (started) this.#started = true;
    if (line !== undefined) this.lines.push(line);
    if (error !== undefined) this.errors.push(error);
    if (halted !== undefined) this.halted = halted;
    if (status !== undefined) for (const told of this.#statuses.splice(0)) told(status);
  }
}
