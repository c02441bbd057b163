import type { TopicDifference, TopicSpec } from '@headwater/core';
import type { Command } from '../command.js';
import type { Config } from '../config.js';
import { UsageError } from '../usage.js';

const EXAMPLE = '"topics": [{ "topic": "orders", "partitions": 4, "cleanupPolicy": "compact" }]';

export const topics: Command = {
  name: 'topics',
  usage: [
    ['topics diff --config FILE', 'what differs between the file and the cluster; 2 when something does'],
    ['topics apply --config FILE --yes', 'creates what is missing and alters settings; never partition counts'],
  ],
  async run({ operands, flags, config, log, say }) {
    const [act] = operands;
    if (act !== 'diff' && act !== 'apply')
      throw new UsageError([`topics ${act ?? ''}: no such act.`], 'Type: headwater topics diff|apply --config FILE');
    const specs = await specsOf(config);
    if (act === 'apply' && flags['dry-run'] !== true) {
      if (flags['yes'] !== true)
        throw new UsageError(
          ['topics apply changes the cluster.'],
          'Type: headwater topics apply --config FILE --yes, or --dry-run.',
        );
      const applied = await log().admin.applyTopics(specs);
      say({ applied }, applied.length === 0 ? 'Nothing to change.' : ['Changed:', ...applied.map(line)].join('\n'));
      return 0;
    }
    const differences = await log().admin.diffTopics(specs);
    say({ differences }, differences.length === 0 ? 'No differences.' : differences.map(line).join('\n'));
    return act === 'diff' && differences.length > 0 ? 2 : 0;
  },
};

const line = ({ topic, setting, wanted, found, remedy }: TopicDifference): string =>
  `${topic}: ${setting} is ${found ?? 'missing'}, wanted ${wanted}. ${remedy}`;

async function specsOf(config: Config): Promise<readonly TopicSpec[]> {
  const { path, file } = config;
  if (path === undefined) throw new UsageError(['topics needs a file.'], `Type: --config FILE, with ${EXAMPLE}`);
  // The file of a capture tells its topics by its tables.
  if (file['tables'] !== undefined || file['captures'] !== undefined) {
    const [{ captureSettings }, { captureTopics }] = await Promise.all([
      import('../capture/capture-config.js'),
      import('@headwater/cdc'),
    ]);
    return captureSettings(config).flatMap((capture) => captureTopics(capture));
  }
  const listed = file['topics'];
  if (!Array.isArray(listed)) throw new UsageError([`${path}: topics is not a list.`], `Write ${EXAMPLE}.`);
  const mistakes = listed.flatMap((spec: Partial<TopicSpec> | null, i) =>
    mistakesOf(spec).map((text) => `${path}: topics[${i}] ${text}`),
  );
  if (mistakes.length > 0) throw new UsageError(mistakes, `Write ${EXAMPLE}.`);
  return listed as TopicSpec[];
}

function mistakesOf(spec: Partial<TopicSpec> | null): string[] {
  const mistakes: string[] = [];
  if (typeof spec?.topic !== 'string' || spec.topic === '') mistakes.push('has no topic');
  if (!Number.isInteger(spec?.partitions) || spec!.partitions! < 1) mistakes.push('has no partitions, a number from 1');
  if (spec?.cleanupPolicy !== 'compact' && spec?.cleanupPolicy !== 'delete')
    mistakes.push('has no cleanupPolicy, compact or delete');
  return mistakes;
}
