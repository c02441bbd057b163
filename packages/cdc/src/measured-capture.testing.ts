import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProcessOptions } from './capture-process.testing.js';

const SCRIPT = fileURLToPath(new URL('./measured-capture.testing.mjs', import.meta.url));

export interface Measured {
  readonly peakRssMb: number;
  /** The longest time that the event loop was held by the process itself. */
  readonly heldMs: number;
}

/** A capture in a process of its own, so that memory and the event loop are its alone. */
export class MeasuredCapture {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #lines: AsyncIterator<string>;

  private constructor(options: ProcessOptions) {
    this.#child = spawn(process.execPath, [SCRIPT, JSON.stringify(options)], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#exited = once(this.#child, 'exit');
    this.#lines = createInterface(this.#child.stdout!)[Symbol.asyncIterator]();
  }

  /** Resolves when it streams. */
  static async start(options: ProcessOptions): Promise<MeasuredCapture> {
    const started = new MeasuredCapture(options);
    await started.#lines.next();
    return started;
  }

  /** Its figures since the last answer, once it has published so many rows. */
  async published(rows: number): Promise<Measured> {
    this.#child.stdin!.write(`rows ${rows}\n`);
    const { value } = await this.#lines.next();
    return JSON.parse(value as string) as Measured;
  }

  async stop(): Promise<void> {
    this.#child.stdin!.end();
    await this.#exited;
  }
}
