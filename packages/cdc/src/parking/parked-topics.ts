import { controlTopicOf, parkedTopicOf, stateTopicOf } from '@headwater/core';
import type { TopicSpec } from '@headwater/core';

/** The name under which `headwater parked` knows what a capture has set aside. */
export const parkedNameOf = (capture: string): string => `cdc.${capture}`;

/** Of one capture: what is parked now, the history of it for people, and what operators ask. */
export function parkingTopics(capture: string): readonly TopicSpec[] {
  const name = parkedNameOf(capture);
  return [
    { topic: stateTopicOf(name), partitions: 1, cleanupPolicy: 'compact' },
    { topic: parkedTopicOf(name), partitions: 1, cleanupPolicy: 'delete', config: { 'retention.ms': '-1' } },
    { topic: controlTopicOf(name), partitions: 1, cleanupPolicy: 'delete' },
  ];
}
