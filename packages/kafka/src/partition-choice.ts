import { partitionOf, type OutRecord, type TopicPartition } from '@headwater/core';
import { KafkaError } from './kafka.errors.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

/** Partitions that were added a moment ago may not have reached every broker. */
const ADDED_MS = 1_000;

/**
 * The partition that the record names, or that Kafka's default partitioner gives its key. Asks the cluster only for what it has not seen. Rejects with
 * LOG_TOPIC_MISSING and LOG_PARTITION_MISSING.
 */
export function choosePartition(
  wire: Wire,
  { topic, partition, key }: OutRecord,
  patienceMs: number,
): number | Promise<number> {
  const leaders = wire.knownLeaders(topic);
  if (partition !== undefined)
    return partition < (leaders?.length ?? 0) ? partition : existing(wire, { topic, partition }, patienceMs);
  if (key === null) {
    throw new KafkaError(
      'LOG_PARTITION_MISSING',
      `a record for ${topic} has neither a key nor a partition. Give it one of them.`,
      { facts: { topic } },
    );
  }
  if (leaders !== undefined && leaders.length > 0) return partitionOf(key, leaders.length);
  return partitionCount(wire, topic, patienceMs).then((count) => partitionOf(key, count));
}

async function existing(wire: Wire, at: TopicPartition, patienceMs: number): Promise<number> {
  const { topic, partition } = at;
  const deadline = performance.now() + Math.min(ADDED_MS, patienceMs);
  for (;;) {
    const count = await partitionCount(wire, topic, patienceMs);
    if (partition < count) return partition;
    if (performance.now() > deadline) {
      throw new KafkaError(
        'LOG_PARTITION_MISSING',
        `topic ${topic} has no partition ${partition}, but ${count}. Leave the partition out, or check the count.`,
        { facts: { topic, partition } },
      );
    }
    await wait(50, wire.closing.signal);
    await wire.refresh([topic]);
  }
}

/** A topic made a moment ago may not have reached every broker. */
async function partitionCount(wire: Wire, topic: string, patienceMs: number): Promise<number> {
  const deadline = performance.now() + Math.min(wire.requestTimeoutMs, patienceMs);
  for (;;) {
    const count = (await wire.leaders(topic))?.length ?? 0;
    if (count > 0) return count;
    if (performance.now() > deadline) {
      throw new KafkaError('LOG_TOPIC_MISSING', `topic ${topic} does not exist. Create it with admin.ensureTopics().`, {
        facts: { topic },
      });
    }
    await wait(50, wire.closing.signal);
    wire.assertOpen();
  }
}
