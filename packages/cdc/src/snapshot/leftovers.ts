import { headerText } from '@headwater/core';
import type { Log, LogRecord } from '@headwater/core';
import { placeOf } from '../place.js';
import { readRecords } from '../position.js';
import type { TableShape } from '../rows.js';

/** Keys held in memory at once. */
const KEYS_AT_ONCE = 250_000;

/** In how many passes the keys of a topic are looked through: memory stays bounded however many there are. */
export function passesFor(topicEnds: readonly number[]): number {
  return Math.max(1, Math.ceil(topicEnds.reduce((sum, end) => sum + end, 0) / KEYS_AT_ONCE));
}

/** Places of one pass whose last record lies before the ends noted when the snapshot began, and is no tombstone. */
export class Leftovers {
  readonly places = new Set<string>();
  readonly #read: number[] = [];

  constructor(
    private readonly log: Log,
    private readonly shape: TableShape,
    private readonly topicEnds: readonly number[],
    private readonly pass: number,
    private readonly passes: number,
  ) {}

  /**
   * Reads what has been written since the last call, or ever, and waits until all of it is decided: the position may be visible before the markers of
   * its transaction have reached this topic, and a row that is not seen yet would be buried.
   */
  async readOn(signal: AbortSignal): Promise<void> {
    const partitions = await this.log.admin.offsets(this.shape.topic);
    for (const { partition, start, high } of partitions) {
      const from = Math.max(start, this.#read[partition] ?? 0);
      this.#read[partition] = high;
      if (from >= high) continue;
      const end = this.topicEnds[partition] ?? 0;
      const each = (record: LogRecord) => {
        if (record.key === null || hash(record.key) % this.passes !== this.pass) return;
        if (headerText(record.headers, 'hw_table') !== this.shape.table) return;
        const place = placeOf(record.key, partition, partitions.length);
        if (record.value === null || record.offset >= end) this.places.delete(place);
        else this.places.add(place);
      };
      await readRecords(this.log, this.shape.topic, partition, from, high, each, signal);
    }
  }
}

function hash(key: Buffer): number {
  let value = 0;
  for (const byte of key) value = (Math.imul(value, 31) + byte) >>> 0;
  return value;
}
