import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import { HeadwaterError, errorMessage, type Log } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import type { Command, ExitCode } from './command.js';
import { commands } from './commands.js';
import { readConfig, type Config } from './config.js';
import { help } from './help.js';
import { UsageError } from './usage.js';

export interface Terminal {
  readonly env: NodeJS.ProcessEnv;
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  /** Aborted by SIGTERM and SIGINT, from the first call on. */
  readonly stop: () => AbortSignal;
  /** True without a terminal. */
  readonly ask: (question: string) => Promise<boolean>;
}

const FLAGS = {
  json: { type: 'boolean' },
  config: { type: 'string' },
  'dry-run': { type: 'boolean' },
  yes: { type: 'boolean' },
  reason: { type: 'string' },
  by: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Runs one command line; resolves with its exit code. Every error ends with what to type next. */
export async function main(args: readonly string[], terminal: Terminal): Promise<ExitCode> {
  const json = args.includes('--json');
  try {
    return await run(args, terminal, json);
  } catch (error) {
    const wrongUsage = error instanceof UsageError;
    const next = wrongUsage ? error.next : 'Look up the code in docs/errors.md; headwater --help lists the commands.';
    const code = error instanceof HeadwaterError ? error.code : wrongUsage ? 'USAGE' : 'FAILED';
    const message = errorMessage(error);
    terminal.err(json ? JSON.stringify({ error: { code, message, next } }) : `${message}\n${next}`);
    return wrongUsage ? 2 : 1;
  }
}

async function run(args: readonly string[], terminal: Terminal, json: boolean): Promise<ExitCode> {
  const [name] = args;
  if (name === undefined || ['help', '--help', '-h'].includes(name)) {
    terminal.out(help(commands));
    return 0;
  }
  const command = commands.find((one) => one.name === name);
  if (command === undefined)
    throw new UsageError(
      [`There is no command "${name}".`],
      `Type: headwater ${commands.map((one) => one.name).join(' | ')}`,
    );
  const { values, positionals } = parsed(command, args.slice(1));
  const flags = values as Readonly<Record<string, string | boolean | undefined>>;
  if (flags['help'] === true) {
    terminal.out(help([command]));
    return 0;
  }
  const config = readConfig(flags['config'] as string | undefined, terminal.env);
  const opened = lazily(() => openLog(config));
  const say = (value: unknown, text: string) => terminal.out(json ? JSON.stringify(value) : text);
  const by = (flags['by'] as string | undefined) ?? userInfo().username;
  try {
    const { out, err, stop, ask } = terminal;
    return await command.run({
      operands: positionals,
      flags,
      json,
      config,
      log: opened.get,
      say,
      out,
      err,
      stop,
      ask,
      by,
    });
  } finally {
    await opened.peek()?.close();
  }
}

function parsed(command: Command, args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: { ...FLAGS, ...command.flags },
      allowPositionals: true,
      strict: true,
    });
  } catch (error) {
    throw new UsageError([errorMessage(error)], `Type: headwater ${command.name} --help`);
  }
}

function openLog(config: Config): Log {
  const kafka = config.kafka();
  if (kafka !== undefined) return kafkaLog({ clientId: 'headwater-cli', ...kafka });
  throw new UsageError(
    ['No brokers are given.'],
    'Type: --config FILE with "kafka": { "brokers": ["host:port"] }, or set KAFKA_BROKERS.',
  );
}

function lazily<T>(make: () => T): { readonly get: () => T; readonly peek: () => T | undefined } {
  let made: T | undefined;
  return { get: () => (made ??= make()), peek: () => made };
}
