import { HeadwaterError, groupOf, stateTopicOf, type TopicPartition } from '@headwater/core';
import type { Command } from '../command.js';
import { UsageError } from '../usage.js';

interface PartitionLag extends TopicPartition {
  readonly committed: number | null;
  readonly lastStable: number;
  readonly lag: number;
}

const PREFIX = groupOf('');
const NOTE =
  'Markers and aborted records count as offsets; without a committed offset the lag is counted from the start.';

export const groups: Command = {
  name: 'groups',
  usage: [
    [
      'groups lag GROUP [--topics TOPIC[,TOPIC]]',
      'how far a group (of a processor: headwater.NAME) is behind, in offsets: markers and aborted records count',
    ],
  ],
  flags: { topics: { type: 'string' } },
  async run({ operands, flags, log, say }) {
    const [act = '', group] = operands;
    if (group === undefined || act !== 'lag')
      throw new UsageError([`groups ${act}: act or group is missing.`], 'Type: headwater groups lag GROUP');
    const topics = topicsOf(flags['topics'], group);
    const { admin } = log();
    const found = (await admin.lag(group)).filter(({ topic }) => !isCounter(group, topic));
    if (found.length === 0) throw nothingCommitted(group);
    const counted = topics?.find((topic) => isCounter(group, topic));
    if (counted !== undefined)
      throw new UsageError(
        [`${counted} is the state of ${group}: what is committed of it is a number of batches, no offset.`],
        'Leave it out of --topics.',
      );
    const asked = topics === undefined ? found : await admin.lag(group, topics);
    const partitions = asked.map((of) => ({ ...of, committed: of.committed < 0 ? null : of.committed }));
    const lag = partitions.reduce((sum, of) => sum + of.lag, 0);
    say({ group, lag, partitions }, [...table(partitions), `Lag of ${group}: ${lag} offsets. ${NOTE}`].join('\n'));
    return 0;
  },
};

function topicsOf(flag: unknown, group: string): readonly string[] | undefined {
  if (typeof flag !== 'string') return undefined;
  const topics = flag.split(',').filter((topic) => topic !== '');
  if (topics.length > 0) return topics;
  throw new UsageError(['--topics names no topic.'], `Type: headwater groups lag ${group} --topics TOPIC[,TOPIC]`);
}

/** What a processor commits of its own state topic is a number of batches, no offset (P8). */
function isCounter(group: string, topic: string): boolean {
  return group.startsWith(PREFIX) && topic === stateTopicOf(group.slice(PREFIX.length));
}

function nothingCommitted(group: string): HeadwaterError {
  const typed = group.startsWith(PREFIX) ? 'GROUP' : groupOf(group);
  return new HeadwaterError(
    'CLI_NOTHING_COMMITTED',
    `group ${group} has committed no offsets: there is none of that name, it has handled nothing yet, or it was idle for longer than the broker keeps offsets. ` +
      `The group of a processor is ${groupOf('NAME')}, of a saga ${groupOf('saga.NAME')}; a projection commits to its database. Type: headwater groups lag ${typed}`,
    { facts: { group } },
  );
}

function table(partitions: readonly PartitionLag[]): string[] {
  const rows = [
    ['partition', 'committed', 'last stable', 'lag'],
    ...partitions.map((of) => [
      `${of.topic}-${of.partition}`,
      String(of.committed ?? 'none'),
      String(of.lastStable),
      String(of.lag),
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
  );
}
