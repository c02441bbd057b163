import { errorCode, errorMessage } from '@headwater/core';
import type { TopicDifference } from '@headwater/core';
import { topicsOf } from '../capture.options.js';
import type { ResolvedOptions } from '../capture.options.js';
import { fault } from './diagnose.js';
import type { Finding } from './diagnose.js';

/** What the brokers say of what a capture needs. */
export interface LogFacts {
  /** Between the topics that capture makes and what it wants. */
  readonly differences: readonly TopicDifference[];
  /** The topics of tables that others make: whether they exist, and with which `cleanup.policy`. */
  readonly foreign: readonly { readonly topic: string; readonly exists: boolean; readonly policy: string }[];
  readonly endsByEpoch: boolean;
}

/** Looks at brokers and topics. Changes nothing; never rejects. */
export async function examineTopics(options: ResolvedOptions): Promise<Finding[]> {
  try {
    return diagnoseTopics(await readTopics(options));
  } catch (error) {
    const isOfVersion = ['KAFKA_TOO_OLD', 'KAFKA_TOO_NEW'].includes(errorCode(error) ?? '');
    return [
      isOfVersion
        ? fault('kafka version', `${errorMessage(error)}`, 'Or point "kafka" to brokers that fit.')
        : fault(
            'kafka',
            `the brokers cannot be asked: ${errorMessage(error)}`,
            'Correct "kafka", or start the brokers.',
          ),
    ];
  }
}

/** What is wrong with brokers and topics, each with its fix. Pure. */
export function diagnoseTopics({ differences, foreign, endsByEpoch }: LogFacts): Finding[] {
  return [
    ...(endsByEpoch ? [] : [OLD_TRANSACTIONS]),
    // What is missing is made at the start, as it is wanted.
    ...differences.filter(({ setting }) => setting !== 'topic').map(difference),
    ...foreign.flatMap(({ topic, exists, policy }) => {
      if (!exists)
        return [
          fault(topic, `topic ${topic} does not exist.`, 'Make it, or let capture make it: leave out topics.manage.'),
        ];
      return policy === 'compact' ? [] : [forgets(topic, policy)];
    }),
  ];
}

const OLD_TRANSACTIONS: Finding = {
  severity: 'advice',
  about: 'transaction.version',
  message:
    'the brokers have no transaction.version 2: when the answer to a commit is lost, capture reads its position again instead of asking once more.',
  fix: 'Upgrade them to Kafka 4.0 or later, then type: kafka-features.sh --bootstrap-server <broker> upgrade --feature transaction.version=2',
};

function difference({ topic, setting, wanted, found, remedy }: TopicDifference): Finding {
  const message = `${setting} of topic ${topic} is ${found ?? 'not set'}, capture wants ${wanted}.`;
  return fault(
    topic,
    message,
    remedy.replace('applyTopics() alters it', 'Type: headwater topics apply --config FILE --yes'),
  );
}

function forgets(topic: string, policy: string): Finding {
  return {
    severity: 'warning',
    about: topic,
    message: `topic ${topic} has cleanup.policy=${policy}: it loses rows that did not change for long, and a reader of it cannot have the table.`,
    fix: `Unless that is wanted, type: kafka-configs.sh --bootstrap-server <broker> --alter --entity-type topics --entity-name ${topic} --add-config cleanup.policy=compact`,
  };
}

async function readTopics(options: ResolvedOptions): Promise<LogFacts> {
  const { log, tables, topics } = options;
  const { endsByEpoch } = await log.admin.abilities();
  const names = topics === undefined ? [...new Set(tables.map(({ topic }) => topic))] : [];
  const found = await log.admin.partitionCounts(names);
  const existing = names.filter((topic) => found.has(topic));
  const as = (topic: string) => ({ topic, partitions: found.get(topic)!, cleanupPolicy: 'compact' }) as const;
  const policies = (await log.admin.diffTopics(existing.map(as))).filter(({ setting }) => setting === 'cleanup.policy');
  const policyOf = (topic: string) => policies.find((of) => of.topic === topic)?.found ?? 'compact';
  return {
    differences: await log.admin.diffTopics(topicsOf(options)),
    foreign: names.map((topic) => ({ topic, exists: found.has(topic), policy: policyOf(topic) })),
    endsByEpoch,
  };
}
