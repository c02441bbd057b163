import { partitionOf } from '@headwater/core';

/** Where a key is live in a topic. */
export interface Place {
  readonly key: string;
  /** Undefined: the one that the key gives. */
  readonly partition: number | undefined;
}

/** No key text holds it: Postgres has no such character. */
const MARK = '\0';

/**
 * Names a key in a partition. One key may be live in one partition and gone from another: where other columns choose the partition, or once did. In the
 * partition that Kafka's default gives it, a key is named by its text alone.
 */
export function placeOf(key: string | Buffer, partition: number, partitions: number): string {
  const bytes = typeof key === 'string' ? Buffer.from(key) : key;
  return partitionOf(bytes, partitions) === partition ? String(key) : `${partition}${MARK}${String(key)}`;
}

export function placeNamed(name: string): Place {
  const at = name.indexOf(MARK);
  return at < 0
    ? { key: name, partition: undefined }
    : { key: name.slice(at + 1), partition: Number(name.slice(0, at)) };
}
