import type { TopicDifference, TopicSpec } from '@headwater/core';
import type { Admin } from 'kafkajs';
import { KafkaError, isRetriable, refused } from './kafka.errors.js';
import { describeTopics, incrementalAlterConfigs, type TopicSettings } from './requests/admin.js';
import { metadata, type TopicMetadata } from './requests/cluster.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

const PATIENCE_MS = 30_000;
const MISSING = 'topic';

/** Makes, compares and alters topics. */
export class KafkaTopics {
  readonly #wire: Wire;
  readonly #admin: () => Promise<Admin>;

  constructor(wire: Wire, admin: () => Promise<Admin>) {
    this.#wire = wire;
    this.#admin = admin;
  }

  async ensure(specs: readonly TopicSpec[]): Promise<void> {
    const existing = await this.#described(specs.map(({ topic }) => topic));
    await this.#create(specs.filter(({ topic }) => !existing.has(topic)));
    // The new ones too: another process may have created them first, and differently. Brokers learn of a topic one after the other.
    let differences: TopicDifference[] = [];
    const known = async () => {
      differences = await this.diff(specs);
      return differences.every(({ setting }) => setting !== MISSING);
    };
    await this.#until(known, 'Metadata', specs);
    if (differences.length > 0) throw mismatch(differences);
  }

  async diff(specs: readonly TopicSpec[]): Promise<TopicDifference[]> {
    const described = await this.#described(specs.map(({ topic }) => topic));
    const found = await this.#settings(specs.filter(({ topic }) => described.has(topic)));
    return specs.flatMap((spec) => differencesOf(spec, described.get(spec.topic), found.get(spec.topic)));
  }

  async apply(specs: readonly TopicSpec[]): Promise<TopicDifference[]> {
    const differences = await this.diff(specs);
    const lasting = differences.filter(({ setting }) => setting === 'partitions' || setting === 'replication.factor');
    if (lasting.length > 0) throw mismatch(lasting);
    const isMissing = (topic: string) => differences.some((of) => of.topic === topic && of.setting === MISSING);
    await this.#create(specs.filter(({ topic }) => isMissing(topic)));
    await this.#alter(specs.filter(({ topic }) => !isMissing(topic) && differences.some((of) => of.topic === topic)));
    // Settings reach the brokers a moment after the controller took them.
    await this.#until(async () => (await this.diff(specs)).length === 0, 'IncrementalAlterConfigs', specs);
    return differences;
  }

  async ids(topics: readonly string[]): Promise<Map<string, string>> {
    return new Map([...(await this.#described(topics))].map(([topic, { id }]) => [topic, id]));
  }

  async delete(topics: readonly string[]): Promise<void> {
    const existing = [...(await this.#described(topics)).keys()];
    if (existing.length === 0) return;
    const admin = await this.#admin();
    await admin.deleteTopics({ topics: existing, timeout: PATIENCE_MS });
    const gone = async () => {
      await this.#wire.refresh(existing);
      return existing.every((topic) => this.#wire.knownLeaders(topic) === undefined);
    };
    await this.#until(
      gone,
      'DeleteTopics',
      existing.map((topic) => ({ topic })),
    );
  }

  async #described(topics: readonly string[]): Promise<Map<string, TopicMetadata>> {
    if (topics.length === 0) return new Map();
    const answer = await this.#wire.ask(metadata([...new Set(topics)]));
    for (const { topic, error } of answer.topics) {
      if (error === 17 || error === 29) throw refused('Metadata', error, { topic });
    }
    return new Map(answer.topics.filter(({ leaders }) => leaders.length > 0).map((of) => [of.topic, of]));
  }

  async #settings(specs: readonly TopicSpec[]): Promise<Map<string, ReadonlyMap<string, string>>> {
    if (specs.length === 0) return new Map();
    const asked = specs.map((spec) => ({ topic: spec.topic, names: Object.keys(settings(spec)) }));
    let found: readonly TopicSettings[] = [];
    const known = async () => {
      found = await this.#wire.ask(describeTopics(asked));
      for (const { topic, error } of found)
        if (error !== 0 && !isRetriable(error)) throw refused('DescribeConfigs', error, { topic });
      return found.every(({ error }) => error === 0);
    };
    await this.#until(known, 'DescribeConfigs', specs);
    return new Map(found.map((of) => [of.topic, of.settings]));
  }

  async #create(specs: readonly TopicSpec[]): Promise<void> {
    if (specs.length > 0) {
      const admin = await this.#admin();
      const topics = specs.map((spec) => ({
        topic: spec.topic,
        numPartitions: spec.partitions,
        replicationFactor: spec.replicationFactor ?? -1, // the broker's default
        configEntries: Object.entries(settings(spec)).map(([name, value]) => ({ name, value })),
      }));
      // Those that exist are passed over, so it can be asked twice.
      await this.#patiently('CreateTopics', specs, () =>
        admin.createTopics({ waitForLeaders: false, timeout: PATIENCE_MS, topics }),
      );
    }
    const topics = specs.map(({ topic }) => topic);
    const led = async (): Promise<boolean> => {
      await this.#wire.refresh(topics);
      return topics.every((topic) => {
        const leaders = this.#wire.knownLeaders(topic) ?? [];
        return leaders.length > 0 && leaders.every((leader) => leader >= 0);
      });
    };
    await this.#until(led, 'Metadata', specs);
  }

  async #alter(specs: readonly TopicSpec[]): Promise<void> {
    if (specs.length === 0) return;
    const changes = specs.map((spec) => ({ topic: spec.topic, settings: settings(spec) }));
    for (const { topic, error, message } of await this.#wire.ask(incrementalAlterConfigs(changes))) {
      if (error !== 0) throw refused('IncrementalAlterConfigs', error, { topic, message });
    }
  }

  /** Repeats what may be done twice: a broker may be slow, gone, or not have heard of a topic that another one knows. */
  async #patiently<T>(what: string, of: readonly { readonly topic: string }[], attempt: () => Promise<T>): Promise<T> {
    let result: { readonly value: T } | undefined;
    const done = async () => {
      try {
        result = { value: await attempt() };
        return true;
      } catch (error) {
        if ((error as { retriable?: unknown }).retriable === true) return false;
        throw error;
      }
    };
    await this.#until(done, what, of);
    return result!.value;
  }

  async #until(done: () => Promise<boolean>, what: string, of: readonly { readonly topic: string }[]): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      let last: unknown = 'the topics were not ready';
      try {
        if (await done()) return;
      } catch (error) {
        if (!(error instanceof KafkaError) || !error.retryable) throw error;
        last = error;
      }
      this.#wire.assertOpen();
      const topics = of.map(({ topic }) => topic).join(', ');
      if (performance.now() > deadline) throw unreachable(what, topics, last);
      await wait(50, this.#wire.closing.signal);
    }
  }
}

function differencesOf(
  spec: TopicSpec,
  described: TopicMetadata | undefined,
  found: ReadonlyMap<string, string> | undefined,
): TopicDifference[] {
  const { topic, replicationFactor } = spec;
  if (described === undefined) {
    return [{ topic, setting: MISSING, wanted: 'exists', found: undefined, remedy: 'applyTopics() creates it.' }];
  }
  const differences: TopicDifference[] = [];
  const { length: partitions } = described.leaders;
  if (partitions !== spec.partitions) {
    differences.push({
      topic,
      setting: 'partitions',
      wanted: String(spec.partitions),
      found: String(partitions),
      remedy:
        'Keys would move to other partitions and lose their order: write into a new topic with the wanted count, or want the count that is there.',
    });
  }
  if (replicationFactor !== undefined && described.replicas !== replicationFactor) {
    differences.push({
      topic,
      setting: 'replication.factor',
      wanted: String(replicationFactor),
      found: String(described.replicas),
      remedy: 'Reassign its partitions with kafka-reassign-partitions, or want the factor that is there.',
    });
  }
  for (const [setting, wanted] of Object.entries(settings(spec))) {
    const value = found?.get(setting);
    if (value === wanted) continue;
    differences.push({ topic, setting, wanted, found: value, remedy: 'applyTopics() alters it.' });
  }
  return differences;
}

function mismatch(differences: readonly TopicDifference[]): KafkaError {
  const list = differences.map((of) => {
    return `${of.topic} ${of.setting}: wanted ${of.wanted}, found ${of.found ?? 'none'}. ${of.remedy}`;
  });
  return new KafkaError('LOG_TOPIC_MISMATCH', `${differences.length} difference(s): ${list.join(' ')}`, {
    facts: { differences },
  });
}

function settings(spec: TopicSpec): Record<string, string> {
  return { ...spec.config, 'cleanup.policy': spec.cleanupPolicy };
}
