import type { TopicDifference, TopicSpec } from '@headwater/core';
import { PartitionLog } from './partition-log.js';
import { topicMissing } from './refusals.js';

export interface Topic {
  readonly id: string;
  readonly partitions: PartitionLog[];
  readonly settings: Map<string, string>;
  readonly replicationFactor: number;
}

/** What Kafka's topics have when nobody says otherwise, as far as the log in memory heeds it. */
const DEFAULTS: Readonly<Record<string, string>> = { 'cleanup.policy': 'delete', 'max.message.bytes': '1048588' };

export class Topics {
  readonly #topics = new Map<string, Topic>();
  #ids = 0;

  find(topic: string): Topic | undefined {
    return this.#topics.get(topic);
  }

  /** Throws LOG_TOPIC_MISSING. */
  get(topic: string): Topic {
    const found = this.#topics.get(topic);
    if (found === undefined) throw topicMissing(topic);
    return found;
  }

  all(): IterableIterator<Topic> {
    return this.#topics.values();
  }

  create({ topic, partitions, cleanupPolicy, replicationFactor, config }: TopicSpec): void {
    this.#topics.set(topic, {
      id: `topic-${++this.#ids}`,
      partitions: Array.from({ length: partitions }, (_, n) => new PartitionLog(topic, n)),
      settings: new Map(Object.entries({ ...DEFAULTS, ...config, 'cleanup.policy': cleanupPolicy })),
      replicationFactor: replicationFactor ?? 1,
    });
  }

  delete(topic: string): boolean {
    return this.#topics.delete(topic);
  }

  /** What differs from the specs, missing topics among it. */
  differences(specs: readonly TopicSpec[]): TopicDifference[] {
    return specs.flatMap((spec) => {
      const found = this.#topics.get(spec.topic);
      if (found === undefined) return [missing(spec)];
      const wanted: [string, string, string | undefined, string][] = [
        ['partitions', String(spec.partitions), String(found.partitions.length), REPARTITION],
      ];
      if (spec.replicationFactor !== undefined)
        wanted.push(['replication.factor', String(spec.replicationFactor), String(found.replicationFactor), REASSIGN]);
      for (const [name, value] of Object.entries({ ...spec.config, 'cleanup.policy': spec.cleanupPolicy }))
        wanted.push([name, value, found.settings.get(name), ALTER]);
      return wanted
        .filter(([, value, present]) => value !== present)
        .map(([setting, value, present, remedy]) => ({
          topic: spec.topic,
          setting,
          wanted: value,
          found: present,
          remedy,
        }));
    });
  }
}

const REPARTITION =
  'Keys would move to other partitions and lose their order: write into a new topic with the wanted count, or want the count that is there.';
const REASSIGN = 'Reassign its partitions with the tools of the cluster, or want the factor that is there.';
const ALTER = 'applyTopics() alters it.';

function missing({ topic }: TopicSpec): TopicDifference {
  return { topic, setting: 'topic', wanted: 'exists', found: undefined, remedy: 'applyTopics() creates it.' };
}
