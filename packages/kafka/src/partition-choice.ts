import { partitionOf, type OutRecord } from '@headwater/core';
import { KafkaError } from './kafka.errors.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

/** The partition that Kafka's default partitioner gives the record's key. Asks the cluster only for a topic it has not seen. */
export function choosePartition(wire: Wire, { topic, key }: OutRecord, patienceMs: number): number | Promise<number> {
  if (key === null) {
    throw new KafkaError(
      'LOG_PARTITION_MISSING',
      `a record for ${topic} has neither a key nor a partition. Give it one of them.`,
      { facts: { topic } },
    );
  }
  const leaders = wire.knownLeaders(topic);
  if (leaders !== undefined && leaders.length > 0) return partitionOf(key, leaders.length);
  return partitionCount(wire, topic, patienceMs).then((count) => partitionOf(key, count));
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
