import type { CapturedTable, ResolvedOptions } from './capture.options.js';
import { parkingTopics } from './parking/parked-topics.js';

type Wanted = Pick<CapturedTable, 'table' | 'topic' | 'keyWithTable'>;

/** What capture keeps for itself, by topic. */
export type OwnTopicOptions = Pick<ResolvedOptions, 'name' | 'positionTopic' | 'schemasTopic' | 'transactionsTopic'>;

/** What keeps tables from being captured together, each with its remedy. Pure. */
export function topicFaults(tables: readonly Wanted[], options: OwnTopicOptions): string[] {
  const isAgain = ({ table }: Wanted, i: number) => tables.findIndex((other) => other.table === table) < i;
  return [
    ...tables.filter(isAgain).map(({ table }) => `${table}: captured twice. Name it once.`),
    ...sharedTopics(tables.filter((table, i) => !isAgain(table, i))),
    ...ownTopics(tables, options),
  ];
}

/** Rows among what capture keeps for itself would be taken for that, and so would what it keeps for two purposes in one topic. */
function ownTopics(tables: readonly Wanted[], options: OwnTopicOptions): string[] {
  const { name, positionTopic, schemasTopic, transactionsTopic } = options;
  const own = [
    { topic: positionTopic, holds: 'the position' },
    { topic: schemasTopic, holds: 'the versions of tables' },
    { topic: transactionsTopic, holds: 'the transactions' },
    ...parkingTopics(name).map(({ topic }) => ({ topic, holds: 'what is parked' })),
  ].filter(({ topic }) => topic !== undefined);
  return own.flatMap(({ topic, holds }, i) => [
    ...tables
      .filter((table) => table.topic === topic)
      .map(({ table }) => `${table}: its topic ${topic} holds ${holds} of this capture. Give the table another one.`),
    ...own
      .slice(0, i)
      .filter((other) => other.topic === topic)
      .map((other) => `topic ${topic} would hold ${other.holds} and ${holds} of this capture. Give each its own.`),
  ]);
}

/** Tables whose keys would meet in one topic, where the last record of a key stands for all before it. Pure. */
export function sharedTopics(tables: readonly Wanted[]): string[] {
  const topics = [...new Set(tables.map(({ topic }) => topic))];
  return topics.flatMap((topic) => {
    const sharing = tables.filter((table) => table.topic === topic);
    const bare = sharing.filter(({ keyWithTable }) => keyWithTable !== true);
    if (sharing.length < 2 || bare.length === 0) return [];
    const names = (of: readonly Wanted[]) => of.map(({ table }) => table).join(', ');
    return [
      `${names(sharing)} share topic ${topic}: rows of different tables with the same key would replace each other. Give ${names(bare)} "keyWithTable": true, or a topic of its own.`,
    ];
  });
}
