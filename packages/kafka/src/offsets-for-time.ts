import type { LogReader, PartitionOffset } from '@headwater/core';

export interface SearchedPartition extends PartitionOffset {
  /** The last stable offset: the answer where no record is late enough. */
  readonly end: number;
}

/**
 * The first record at or after the time on each partition, read from `next` on. The broker's own answer is never too late, but it may be too
 * early: markers carry the time of their commit, which says nothing about the records behind them, and aborted records count for it.
 */
export async function firstAtOrAfter(
  reader: LogReader,
  timestampMs: number,
  partitions: readonly SearchedPartition[],
): Promise<PartitionOffset[]> {
  const left = new Map(partitions.map((of) => [`${of.topic}/${of.partition}`, of]));
  const found = new Map<string, number>();
  const settle = (key: string, { topic, partition }: SearchedPartition, offset: number): void => {
    found.set(key, offset);
    left.delete(key);
    reader.drop(topic, partition);
  };
  for (const [key, of] of left) {
    if (of.next >= of.end) settle(key, of, of.end);
    else reader.seek(of.topic, of.partition, of.next);
  }
  while (left.size > 0) {
    for (const { topic, partition, records, nextOffset } of await reader.poll()) {
      const key = `${topic}/${partition}`;
      const of = left.get(key);
      if (of === undefined) continue;
      const first = records.find(({ offset, timestamp }) => timestamp >= timestampMs && offset < of.end);
      if (first !== undefined) settle(key, of, first.offset);
      else if (nextOffset >= of.end) settle(key, of, of.end);
    }
  }
  return partitions.map(({ topic, partition }) => ({ topic, partition, next: found.get(`${topic}/${partition}`)! }));
}
