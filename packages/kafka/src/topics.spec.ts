import { expect, it } from '@jest/globals';
import type { Admin } from 'kafkajs';
import type { TopicMetadata } from './requests/cluster.js';
import { KafkaTopics } from './topics.js';
import type { Wire } from './wire.js';

const SPEC = { topic: 'orders', partitions: 1, cleanupPolicy: 'delete' } as const;
const KNOWN: TopicMetadata = { topic: 'orders', error: 0, id: 'id', leaders: [1], leaderEpochs: [0], replicas: 1 };

const UNKNOWN_TOPIC = 3;

/** A cluster whose brokers answer each question in turn, the last answer for ever. */
function cluster(answers: { readonly metadata: TopicMetadata[][]; readonly settings: ('unknown' | 'delete')[] }) {
  const next = <T>(list: T[]): T => (list.length > 1 ? list.shift()! : list[0]!);
  const wire = {
    async ask({ apiName }: { readonly apiName: string }) {
      if (apiName === 'Metadata') return { topics: next(answers.metadata) };
      const value = next(answers.settings);
      const error = value === 'unknown' ? UNKNOWN_TOPIC : 0;
      return [{ topic: 'orders', error, settings: new Map([['cleanup.policy', value]]) }];
    },
    refresh: async () => undefined,
    knownLeaders: () => [1],
    assertOpen: () => undefined,
    closing: new AbortController(),
  };
  const admin = { createTopics: async () => true };
  return new KafkaTopics(wire as unknown as Wire, async () => admin as unknown as Admin);
}

it('asks again while one broker has not heard of a topic that another one has just made', async () => {
  await cluster({ metadata: [[], [], [KNOWN]], settings: ['unknown', 'unknown', 'delete'] }).ensure([SPEC]);
});

it('refuses what differs, also when it is told late', async () => {
  const topics = cluster({ metadata: [[], [], [KNOWN]], settings: ['unknown', 'delete'] });
  await expect(topics.ensure([{ ...SPEC, cleanupPolicy: 'compact' }])).rejects.toMatchObject({
    code: 'LOG_TOPIC_MISMATCH',
  });
});
