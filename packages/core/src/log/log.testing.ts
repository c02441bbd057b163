import { randomUUID } from 'node:crypto';
import type { Header, Log, LogRecord, OutRecord } from './log.js';
import { readCommitted } from './read-committed.js';

/** Writes the records in one transaction of a writer of their own. */
export async function produce(log: Log, records: readonly OutRecord[]): Promise<void> {
  const writer = log.writer({ transactionalId: `test-${randomUUID()}` });
  try {
    await writer.fence();
    const end = await writer.transact(records);
    if (end.outcome !== 'committed')
      throw new Error(`the records of the test were ${end.outcome}`, { cause: end.cause });
  } finally {
    await writer.close();
  }
}

/** Everything that is visible in the topic now, by partition and offset. */
export async function committedRecords(log: Log, topic: string): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  await readCommitted(log, topic, (record) => records.push(record));
  return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
}

/** The values of a topic as texts, per key in log order; `null` for a tombstone. */
export async function textsByKey(log: Log, topic: string): Promise<Record<string, (string | null)[]>> {
  const texts: Record<string, (string | null)[]> = {};
  for (const record of await committedRecords(log, topic))
    (texts[record.key?.toString() ?? ''] ??= []).push(record.value?.toString() ?? null);
  return texts;
}

export function textRecord(topic: string, key: string | null, value: string | null, headers: Header[] = []): OutRecord {
  return {
    topic,
    key: key === null ? null : Buffer.from(key),
    value: value === null ? null : Buffer.from(value),
    headers,
    ...(key === null ? { partition: 0 } : {}),
  };
}
