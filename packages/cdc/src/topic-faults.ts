import type { CapturedTable } from './capture.options.js';
import { ownTopicsOf, ownTopicsTwice, tablesInOwnTopics, type OwnTopicOptions } from './own-topics.js';

type Wanted = Pick<CapturedTable, 'table' | 'topic' | 'keyWithTable'>;

/** What keeps tables from being captured together, each with its remedy. Pure. */
export function topicFaults(tables: readonly Wanted[], options: OwnTopicOptions): string[] {
  const isAgain = ({ table }: Wanted, i: number) => tables.findIndex((other) => other.table === table) < i;
  return [
    ...tables.filter(isAgain).map(({ table }) => `${table}: captured twice. Name it once.`),
    ...sharedTopics(tables.filter((table, i) => !isAgain(table, i))),
    ...ownTopicFaults(tables, options),
  ];
}

/** Those faults that have to be known before any topic is made: one made for another purpose would forget, or keep, what it must not. Pure. */
export function ownTopicFaults(tables: readonly Wanted[], options: OwnTopicOptions): string[] {
  const own = ownTopicsOf(options);
  return [...tablesInOwnTopics(tables, own), ...ownTopicsTwice(own)];
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
