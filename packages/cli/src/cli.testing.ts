import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const bin = join(process.cwd(), 'packages/cli/bin/headwater.mjs');

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The real bin in a process of its own, which ends at the latest with this one. */
export class Headwater {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<Ran>;
  #out = '';
  #err = '';

  constructor(args: readonly string[], more: NodeJS.ProcessEnv = {}, node: readonly string[] = []) {
    const { KAFKA_BROKERS: _, DATABASE_URL: __, ...env } = process.env;
    this.child = spawn(process.execPath, [...node, bin, ...args], { env: { ...env, ...more } });
    this.child.stdin.end();
    this.child.stdout.on('data', (chunk: Buffer) => (this.#out += String(chunk)));
    this.child.stderr.on('data', (chunk: Buffer) => (this.#err += String(chunk)));
    this.ended = new Promise((resolve) =>
      this.child.once('close', (code) => resolve({ code, out: this.#out.trim(), err: this.#err.trim() })),
    );
  }

  get err(): string {
    return this.#err;
  }

  /** The whole lines of stdout so far, each as JSON. */
  lines<T>(): readonly T[] {
    return this.#out
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as T);
  }

  kill(signal: NodeJS.Signals): Promise<Ran> {
    this.child.kill(signal);
    return this.ended;
  }
}

export const headwater = (...args: string[]): Promise<Ran> => new Headwater(args).ended;

/** A directory of config files. */
export class Configs {
  readonly directory = mkdtempSync(join(tmpdir(), 'headwater-cli-'));
  #files = 0;

  write(config: unknown): string {
    const path = join(this.directory, `config-${this.#files++}.json`);
    writeFileSync(path, JSON.stringify(config));
    return path;
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
