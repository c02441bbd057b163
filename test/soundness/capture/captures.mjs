import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../../../packages/cdc/src/crash-child.testing.mjs', import.meta.url));

/** One capture process after another. */
export class Captures {
  #options;
  #child;
  #streaming;
  #told = () => undefined;
  /** The last lines of all of them. */
  said = [];
  streamingAt = 0;

  constructor(options) {
    this.#options = options;
  }

  /** Begins the next one; `streaming` resolves when that streams. */
  start() {
    this.streamingAt = 0;
    const child = fork(script, [JSON.stringify(this.#options)], {
      execArgv: [],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child = child;
    child.stderr.on('data', (chunk) => this.#say(String(chunk).trimEnd()));
    this.#streaming = new Promise((resolve, reject) => {
      child.on('message', ({ line, error, halted, status }) => {
        if (status !== undefined) this.#told(status);
        if (line !== undefined) this.#say(line);
        if (error !== undefined) this.#say(error.message);
        if (halted !== undefined) reject(new Error(`capture halted: ${halted.message}`));
        if (!line?.includes('streaming from')) return;
        this.streamingAt = performance.now();
        resolve();
      });
      child.once('exit', (code) => code !== null && reject(new Error(`capture ended with ${code}`)));
    });
    this.#streaming.catch(() => undefined);
  }

  get pid() {
    return this.#child.pid;
  }

  streaming() {
    return this.#streaming;
  }

  /** What the one that runs says of itself; `collected`: once its garbage is. */
  status(when = 'now') {
    return new Promise((resolve) => {
      this.#told = resolve;
      this.#child.send(when);
    });
  }

  /** SIGSTOP, SIGCONT: it keeps its connections and says nothing. */
  signal(name) {
    this.#child.kill(name);
  }

  async kill() {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('a capture ended by itself');
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  async stop() {
    if (this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    await this.kill();
  }

  #say(line) {
    this.said = [...this.said, line].slice(-20);
  }
}
