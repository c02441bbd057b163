import type { Clock, LogAdmin } from '@headwater/core';

/** What has to be known of a topic before runs can be written to it. */
export interface TopicLimits {
  readonly partitions: number;
  /** The largest batch the topic takes. */
  readonly maxBatchBytes: number;
}

/** Of a record batch, around its records (Kafka's message format 2). */
const BATCH_HEADER_BYTES = 61;

/** What the records of one batch may take together. */
export function roomOf({ maxBatchBytes }: TopicLimits): number {
  return maxBatchBytes - BATCH_HEADER_BYTES;
}

/** How long a topic that was made a moment ago may take to reach every broker. */
const PATIENCE_MS = 5_000;
const PAUSE_MS = 50;
const LIMIT = 'max.message.bytes';

/** Asks the log; a topic that does not exist is absent. */
export async function readTopicLimits(
  admin: LogAdmin,
  topics: readonly string[],
  clock: Clock,
): Promise<ReadonlyMap<string, TopicLimits>> {
  // Nothing has such settings: the differences tell what it has.
  const wanted = topics.map(
    (topic) => ({ topic, partitions: 0, cleanupPolicy: 'compact', config: { [LIMIT]: '0' } }) as const,
  );
  const deadline = clock.elapsed() + PATIENCE_MS;
  for (;;) {
    const found = new Map((await admin.diffTopics(wanted)).map((of) => [`${of.topic} ${of.setting}`, of.found]));
    const limits = new Map<string, TopicLimits>();
    for (const topic of topics) {
      const partitions = found.get(`${topic} partitions`);
      if (partitions === undefined) continue;
      const maxBatchBytes = Number(found.get(`${topic} ${LIMIT}`) ?? Infinity);
      limits.set(topic, { partitions: Number(partitions), maxBatchBytes });
    }
    if (limits.size === wanted.length || clock.elapsed() > deadline) return limits;
    await clock.wait(PAUSE_MS);
  }
}
