import { HeadwaterError } from '../errors/headwater.error.js';
import type { Log, LogRecord } from './log.js';

const PATIENCE_MS = 30_000;
/** Short, because a reader looks for a new leader between two polls. */
const POLL_MS = 250;

/**
 * Calls `take` for every record that is committed now, from `from` on (default: all of the log), in order per partition. Rejects when the topic is
 * missing; with LOG_READ_STALLED when nothing more came for some 30 seconds although there is more.
 */
export async function readCommitted(
  log: Log,
  topic: string,
  take: (record: LogRecord) => void,
  from: ReadonlyMap<number, number> = new Map(),
): Promise<void> {
  const reader = log.reader();
  try {
    const ends = new Map<number, number>();
    for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
      const first = Math.max(start, from.get(partition) ?? 0);
      if (first >= lastStable) continue;
      ends.set(partition, lastStable);
      reader.seek(topic, partition, first);
    }
    let emptyPolls = 0;
    while (ends.size > 0) {
      const batches = await reader.poll({ maxWaitMs: POLL_MS });
      emptyPolls = batches.length === 0 ? emptyPolls + 1 : 0;
      if (emptyPolls * POLL_MS >= PATIENCE_MS) throw stalled(topic, [...ends.keys()]);
      for (const { partition, records, nextOffset } of batches) {
        const end = ends.get(partition);
        if (end === undefined) continue;
        for (const record of records) if (record.offset < end) take(record);
        if (nextOffset < end) continue;
        ends.delete(partition);
        reader.drop(topic, partition);
      }
    }
  } finally {
    await reader.close();
  }
}

function stalled(topic: string, partitions: readonly number[]): HeadwaterError {
  return new HeadwaterError(
    'LOG_READ_STALLED',
    `nothing more of ${topic}, partition ${partitions.join(', ')}, could be read for ${PATIENCE_MS / 1_000} s, although there is more. Check the brokers that lead it, then read again.`,
    { retryable: true, facts: { topic, partitions } },
  );
}
