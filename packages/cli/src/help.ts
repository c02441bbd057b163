import type { Command } from './command.js';

const COMMON: readonly (readonly [string, string])[] = [
  ['--config FILE', 'JSON with "kafka": { "brokers": [...] }; without it KAFKA_BROKERS is used'],
  ['--json', 'one line of JSON per result'],
  ['--dry-run', 'say what would be changed, change nothing'],
  ['--yes', 'change without being asked'],
  ['--reason TEXT', 'why: needed for what changes something, and kept'],
  ['--by NAME', 'who; the name of the user otherwise'],
];

export function help(commands: readonly Command[]): string {
  const usage = commands.flatMap((command) =>
    command.usage.map(([form, does]) => [`headwater ${form}`, does] as const),
  );
  const width = Math.max(...[...usage, ...COMMON].map(([form]) => form.length));
  const lines = (of: readonly (readonly [string, string])[]) =>
    of.map(([form, does]) => `  ${form.padEnd(width)}  ${does}`);
  return [
    'Usage: headwater COMMAND …',
    '',
    ...lines(usage),
    '',
    'With every command:',
    ...lines(COMMON),
    '',
    'Exit codes: 0 done, 1 failed, 2 wrong usage or differences found.',
  ].join('\n');
}
