import type { Log, LogRecord } from './log.js';

/** Calls `take` for every record that is committed now, from `from` on (default: all of the log), in order per partition. Rejects when the topic is missing. */
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
    while (ends.size > 0) {
      for (const { partition, records, nextOffset } of await reader.poll()) {
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
