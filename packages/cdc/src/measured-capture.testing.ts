import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProcessOptions } from './capture-process.testing.js';

const SCRIPT = fileURLToPath(new URL('./measured-child.testing.mjs', import.meta.url));

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
    await started.#told();
    return started;
  }

  /** Its figures since the last answer, once it has published so many rows. */
  async published(rows: number): Promise<Measured> {
    this.#child.stdin!.write(`rows ${rows}\n`);
    return (await this.#told()) as Measured;
  }

  async #told(): Promise<unknown> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('the capture has ended; what it died of stands above');
    return JSON.parse(value) as unknown;
  }

  async stop(): Promise<void> {
    this.#child.stdin!.end();
    await this.#exited;
  }
}
