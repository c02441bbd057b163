import type { LogAdmin, PartitionOffset, TopicPartition, TopicSpec } from '@headwater/core';
import type { Admin, Kafka } from 'kafkajs';
import { KafkaError, refused } from './kafka.errors.js';
import { GROUP } from './requests/call.js';
import { EARLIEST, LATEST, listOffsets } from './requests/fetch.js';
import { offsetFetch } from './requests/group.js';
import { wait } from './wait.js';
import { unreachable, type Wire } from './wire.js';

const PATIENCE_MS = 30_000;
/** A predecessor's open transaction may hold the offsets until it times out at the broker. */
const STABLE_OFFSETS_PATIENCE_MS = 60_000;
const TOPIC_RESOURCE = 2;

export class KafkaAdmin implements LogAdmin {
  readonly #wire: Wire;
  readonly #kafka: Kafka;
  #admin: Promise<Admin> | undefined;

  constructor(wire: Wire, kafka: Kafka) {
    this.#wire = wire;
    this.#kafka = kafka;
  }

  async ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    if (specs.length === 0) return;
    const existing = await this.partitionCounts(specs.map(({ topic }) => topic));
    const missing = specs.filter(({ topic }) => !existing.has(topic));
    if (missing.length > 0) await this.#create(missing);
    await this.#awaitLeaders(specs.map(({ topic }) => topic));
    // The new ones too: another process may have created them first, and differently.
    const differences = await this.#differences(specs);
    if (differences.length === 0) return;
    throw new KafkaError(
      'LOG_TOPIC_MISMATCH',
      `${differences.length} difference(s): ${differences.map((of) => `${of.topic} ${of.setting}: wanted ${of.wanted}, found ${of.found}`).join('; ')}. ` +
        'Alter the topics, or the settings asked for.',
      { facts: { differences } },
    );
  }

  async partitionCounts(topics: readonly string[]): Promise<ReadonlyMap<string, number>> {
    if (topics.length > 0) await this.#wire.refresh(topics);
    const counts = new Map<string, number>();
    for (const topic of topics) {
      const count = this.#wire.knownLeaders(topic)?.length ?? 0;
      if (count > 0) counts.set(topic, count);
    }
    return counts;
  }

  async offsets(topic: string): Promise<(TopicPartition & { start: number; lastStable: number; high: number })[]> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      let last: unknown;
      try {
        return await this.#offsetsOnce(topic);
      } catch (error) {
        if (error instanceof KafkaError && !error.retryable) throw error;
        last = error;
      }
      this.#wire.assertOpen();
      if (performance.now() > deadline) throw unreachable('ListOffsets', topic, last);
      await wait(100, this.#wire.closing.signal);
      await this.#wire.tryRefresh([topic]);
    }
  }

  async committedOffsets(groupId: string, partitions: readonly TopicPartition[]): Promise<readonly PartitionOffset[]> {
    if (partitions.length === 0) return [];
    const lane = this.#wire.lane();
    try {
      const call = offsetFetch(groupId, partitions);
      const patience = { deadlineMs: STABLE_OFFSETS_PATIENCE_MS };
      const answer = await this.#wire.coordinated(GROUP, groupId, call, lane, patience);
      if (answer.error !== 0) throw refused('OffsetFetch', answer.error, { groupId });
      return answer.offsets;
    } finally {
      await this.#wire.release(lane);
    }
  }

  async deleteTopics(topics: readonly string[]): Promise<void> {
    const existing = [...(await this.partitionCounts(topics)).keys()];
    if (existing.length === 0) return;
    const admin = await this.#connected();
    await admin.deleteTopics({ topics: existing, timeout: PATIENCE_MS });
    await this.#until(async () => (await this.partitionCounts(existing)).size === 0, 'DeleteTopics', existing);
  }

  async close(): Promise<void> {
    const admin = this.#admin;
    this.#admin = undefined;
    await admin?.then(
      (connected) => connected.disconnect(),
      () => undefined,
    );
  }

  async #create(specs: readonly TopicSpec[]): Promise<void> {
    const admin = await this.#connected();
    await admin.createTopics({
      waitForLeaders: false,
      timeout: PATIENCE_MS,
      topics: specs.map((spec) => ({
        topic: spec.topic,
        numPartitions: spec.partitions,
        replicationFactor: spec.replicationFactor ?? -1, // the broker's default
        configEntries: Object.entries(settings(spec)).map(([name, value]) => ({ name, value })),
      })),
    });
  }

  async #awaitLeaders(topics: readonly string[]): Promise<void> {
    const led = async (): Promise<boolean> => {
      await this.#wire.refresh(topics);
      return topics.every((topic) => {
        const leaders = this.#wire.knownLeaders(topic) ?? [];
        return leaders.length > 0 && leaders.every((leader) => leader >= 0);
      });
    };
    await this.#until(led, 'Metadata', topics);
  }

  async #until(done: () => Promise<boolean>, what: string, topics: readonly string[]): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!(await done())) {
      this.#wire.assertOpen();
      if (performance.now() > deadline) throw unreachable(what, topics.join(', '), 'the topics were not ready');
      await wait(50, this.#wire.closing.signal);
    }
  }

  async #differences(specs: readonly TopicSpec[]): Promise<Difference[]> {
    const admin = await this.#connected();
    const described = await admin.describeConfigs({
      includeSynonyms: false,
      resources: specs.map((spec) => ({
        type: TOPIC_RESOURCE,
        name: spec.topic,
        configNames: Object.keys(settings(spec)),
      })),
    });
    const differences: Difference[] = [];
    for (const spec of specs) {
      const { topic } = spec;
      const partitions = this.#wire.knownLeaders(topic)?.length ?? 0;
      if (partitions !== spec.partitions) {
        differences.push({ topic, setting: 'partitions', wanted: String(spec.partitions), found: String(partitions) });
      }
      const found = described.resources.find(({ resourceName }) => resourceName === topic)?.configEntries ?? [];
      for (const [setting, wanted] of Object.entries(settings(spec))) {
        const value = found.find(({ configName }) => configName === setting)?.configValue ?? '(unset)';
        if (value !== wanted) differences.push({ topic, setting, wanted, found: value });
      }
    }
    return differences;
  }

  async #offsetsOnce(topic: string): Promise<(TopicPartition & { start: number; lastStable: number; high: number })[]> {
    const count = (await this.#wire.leaders(topic))?.length ?? 0;
    if (count === 0) {
      throw new KafkaError('LOG_TOPIC_MISSING', `topic ${topic} does not exist. Create it with admin.ensureTopics().`, {
        facts: { topic },
      });
    }
    const partitions = Array.from({ length: count }, (_, partition) => ({ topic, partition }));
    const { led, leaderless } = await this.#wire.byLeader(partitions);
    if (leaderless.length > 0) throw unreachable('ListOffsets', `${topic}-${leaderless[0]!.partition}`, 'no leader');
    const list = async (timestamp: number, isolation: 'committed' | 'all'): Promise<ReadonlyMap<number, number>> => {
      const answers = await Promise.all(
        [...led].map(([nodeId, of]) => this.#wire.send(nodeId, listOffsets(of, timestamp, isolation))),
      );
      const offsets = new Map<number, number>();
      for (const { partition, error, offset } of answers.flat()) {
        if (error !== 0) throw refused('ListOffsets', error, { topic, partition });
        offsets.set(partition, offset);
      }
      return offsets;
    };
    // The end that may not be passed is asked for first: the log only grows, so lastStable never exceeds high.
    const start = await list(EARLIEST, 'all');
    const lastStable = await list(LATEST, 'committed');
    const high = await list(LATEST, 'all');
    return partitions.map(({ partition }) => ({
      topic,
      partition,
      start: start.get(partition) ?? 0,
      lastStable: lastStable.get(partition) ?? 0,
      high: high.get(partition) ?? 0,
    }));
  }

  /** kafkajs's admin, connected on first use. */
  #connected(): Promise<Admin> {
    this.#wire.assertOpen();
    this.#admin ??= (async () => {
      const admin = this.#kafka.admin();
      await admin.connect();
      return admin;
    })().catch((error: unknown) => {
      this.#admin = undefined;
      throw error;
    });
    return this.#admin;
  }
}

interface Difference {
  readonly topic: string;
  readonly setting: string;
  readonly wanted: string;
  readonly found: string;
}

function settings(spec: TopicSpec): Record<string, string> {
  return { ...spec.config, 'cleanup.policy': spec.cleanupPolicy };
}
