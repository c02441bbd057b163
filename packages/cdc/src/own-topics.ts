import type { CaptureOptions, CapturedTable } from './capture.options.js';
import { parkingTopics } from './parking/parked-topics.js';

/** What tells the topics that a capture keeps for itself. */
export type OwnTopicOptions = Pick<CaptureOptions, 'name' | 'positionTopic' | 'schemasTopic' | 'transactionsTopic'>;

export interface OwnTopic {
  readonly topic: string;
  readonly holds: string;
}

/** The topic that holds how far the capture of this name is durable. */
export const positionTopicOf = (name: string): string => `headwater.cdc.${name}.position`;

/** The topics that a capture keeps for itself, those of parking also when it does not park: it reads them where they are. */
export function ownTopicsOf({ name, positionTopic, schemasTopic, transactionsTopic }: OwnTopicOptions): OwnTopic[] {
  const given = (topic: string | undefined, holds: string) => (topic === undefined ? [] : [{ topic, holds }]);
  return [
    { topic: positionTopic ?? positionTopicOf(name), holds: 'the position' },
    ...given(schemasTopic, 'the versions of tables'),
    ...given(transactionsTopic, 'the transactions'),
    ...parkingTopics(name).map(({ topic }) => ({ topic, holds: 'what is parked' })),
  ].map((own) => ({ ...own, holds: `${own.holds} of capture ${name}` }));
}

/** Rows among what a capture keeps for itself would be taken for that. Pure. */
export function tablesInOwnTopics(
  tables: readonly Pick<CapturedTable, 'table' | 'topic'>[],
  own: readonly OwnTopic[],
): string[] {
  return own.flatMap(({ topic, holds }) =>
    tables
      .filter((table) => table.topic === topic)
      .map(({ table }) => `${table}: its topic ${topic} holds ${holds}. Give the table another one.`),
  );
}

/** What a capture keeps for two purposes in one topic. Pure. */
export function ownTopicsTwice(own: readonly OwnTopic[]): string[] {
  return own.flatMap(({ topic, holds }, i) =>
    own
      .slice(0, i)
      .filter((other) => other.topic === topic)
      .map((other) => `topic ${topic} would hold ${other.holds} and ${holds}. Give each its own.`),
  );
}
