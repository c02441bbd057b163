import type { ParseArgsConfig } from 'node:util';
import type { Log } from '@headwater/core';
import type { Config } from './config.js';

/** 0 done, 1 failed, 2 wrong usage or differences found. */
export type ExitCode = 0 | 1 | 2;

export interface Invocation {
  /** What stands behind the command's name. */
  readonly operands: readonly string[];
  readonly flags: Readonly<Record<string, string | boolean | undefined>>;
  /** --json. */
  readonly json: boolean;
  readonly config: Config;
  /** Opened on first use, closed behind the command. */
  readonly log: () => Log;
  /** Says a result: as one line of JSON with --json, as text otherwise. */
  readonly say: (value: unknown, text: string) => void;
  /** One line to stdout, one to stderr, as they are. */
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  /** Aborted when the process is asked to end (SIGTERM, SIGINT). Only a command that calls it is spared the end at once. */
  readonly stop: () => AbortSignal;
  /** Asks a person at a terminal. Without a terminal nobody can be asked, and the command line is the answer: yes. */
  readonly ask: (question: string) => Promise<boolean>;
  /** Who asks: --by, or the user's name. */
  readonly by: string;
}

/** One command, one file in `commands/`, named in `commands.ts`. */
export interface Command {
  readonly name: string;
  /** One line each: how it is typed, what it does. */
  readonly usage: readonly (readonly [form: string, does: string])[];
  /** Flags of its own, besides those of all commands. */
  readonly flags?: ParseArgsConfig['options'];
  run(invocation: Invocation): Promise<ExitCode>;
}
