import { KafkaError } from './kafka.errors.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

const TOPIC_PATIENCE_MS = 5_000;

/** The number of partitions all topics of a group have. Waits a moment for topics that were just created. */
export async function coPartitionCount(
  wire: Wire,
  groupId: string,
  topics: readonly string[],
  stopping: AbortSignal,
): Promise<number> {
  const deadline = performance.now() + TOPIC_PATIENCE_MS;
  for (;;) {
    await wire.refresh(topics);
    const counts = topics.map((topic) => [topic, wire.knownLeaders(topic)?.length ?? 0] as const);
    const missing = counts.filter(([, count]) => count === 0).map(([topic]) => topic);
    if (missing.length === 0) return equalCount(groupId, counts);
    if (stopping.aborted || performance.now() > deadline) {
      throw new KafkaError(
        'LOG_TOPIC_MISSING',
        `group ${groupId} reads ${missing.join(', ')}, which does not exist. Create it with admin.ensureTopics() first.`,
        { facts: { groupId, missing } },
      );
    }
    await wait(100, stopping, wire.closing.signal);
  }
}

function equalCount(groupId: string, counts: readonly (readonly [topic: string, count: number])[]): number {
  const [first] = counts;
  if (first === undefined) {
    throw new KafkaError('LOG_OPTIONS_INVALID', `group ${groupId} has no topics. Name at least one.`, {
      facts: { groupId },
    });
  }
  if (counts.every(([, count]) => count === first[1])) return first[1];
  throw new KafkaError(
    'LOG_NOT_COPARTITIONED',
    `group ${groupId}: partition counts differ: ${counts.map(([topic, count]) => `${topic} has ${count}`).join(', ')}. ` +
      'Records of one key would lie on different members. Make the counts equal, or copy one topic into a new one with the other’s count.',
    { facts: { groupId, counts: Object.fromEntries(counts) } },
  );
}
