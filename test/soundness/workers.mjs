import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('./worker.mjs', import.meta.url));

/** The worker processes of a run: each under a stable instance id, and started again at once when it was killed. */
export class Workers {
  #options;
  #slots;
  said = [];

  constructor(count, options) {
    this.#options = options;
    this.#slots = Array.from({ length: count }, (_, index) => ({ index, child: undefined, paused: false }));
    for (const slot of this.#slots) this.#start(slot);
  }

  get count() {
    return this.#slots.length;
  }

  clientId(index) {
    return `${this.#options.name}-${index}`;
  }

  /** kill -9, and another one in its place. */
  async kill(index) {
    const slot = this.#slots[index];
    await this.#end(slot);
    this.#start(slot);
  }

  /** SIGSTOP, and SIGCONT after `ms`. */
  async pause(index, ms) {
    const { child } = this.#slots[index];
    child.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, ms));
    child.kill('SIGCONT');
  }

  /** What they say of themselves, and the last lines they wrote. */
  async report() {
    for (const { child } of this.#slots) if (child.connected) child.send('health');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    return this.said.join('\n');
  }

  async stop() {
    await Promise.all(this.#slots.map((slot) => this.#end(slot)));
  }

  #start(slot) {
    const options = { ...this.#options, instanceId: String(slot.index), clientId: this.clientId(slot.index) };
    const child = spawn(process.execPath, [script, JSON.stringify(options)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    child.stderr.on('data', (chunk) => {
      this.said = [...this.said, ...String(chunk).trimEnd().split('\n')].slice(-15);
    });
    slot.child = child;
  }

  async #end({ child }) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
}
