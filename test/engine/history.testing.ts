import type { LogRecord } from '@headwater/core';

/** A transaction as its client saw it. Every value is written once in the whole history. */
export interface Operation {
  readonly values: readonly string[];
  /** `failed`: never asked to commit, or told aborted. `unknown`: asked to commit, not told. */
  outcome: 'open' | 'committed' | 'failed' | 'unknown';
  /** When the commit was asked for, on the clock of the reads. Infinity: never. */
  askedAt: number;
}

export interface Read {
  readonly value: string;
  readonly place: string;
  readonly at: number;
}

/**
 * What a history of a committed-only log must not show, by Jepsen's names (jepsen.io/analyses/redpanda-21.10.1, Kafka workload).
 * Pure: operations and reads in, sentences out.
 */
export function anomalies(operations: readonly Operation[], reads: readonly Read[]): string[] {
  const found: string[] = [];
  const placesOf = new Map<string, Set<string>>();
  const firstAt = new Map<string, number>();
  const valueAt = new Map<string, string>();
  for (const { value, place, at } of reads) {
    placesOf.set(value, (placesOf.get(value) ?? new Set()).add(place));
    firstAt.set(value, Math.min(firstAt.get(value) ?? Infinity, at));
    const other = valueAt.get(place) ?? value;
    if (other !== value) found.push(`inconsistent offset: ${place} held ${other} and ${value}`);
    valueAt.set(place, value);
  }
  const known = new Set<string>();
  for (const { values, outcome, askedAt } of operations) {
    const seen = values.filter((value) => placesOf.has(value));
    for (const value of values) known.add(value);
    if (outcome === 'failed' && seen.length > 0) found.push(`aborted read: ${seen.join(', ')}`);
    if (outcome === 'committed' && seen.length < values.length)
      found.push(`lost write: ${values.filter((value) => !seen.includes(value)).join(', ')}`);
    if (outcome === 'unknown' && seen.length > 0 && seen.length < values.length)
      found.push(`intermediate read: ${seen.join(', ')} of ${values.join(', ')}`);
    for (const value of seen) {
      if (placesOf.get(value)!.size > 1)
        found.push(`duplicate: ${value} at ${[...placesOf.get(value)!].join(' and ')}`);
      if (firstAt.get(value)! < askedAt) found.push(`precommitted read: ${value}`);
    }
  }
  for (const value of placesOf.keys()) if (!known.has(value)) found.push(`never written: ${value}`);
  return found;
}

/** One reader's polls of one partition must only go forward, and agree with everybody else's about what lies between. */
export class Forward {
  readonly #next = new Map<string, number>();
  readonly found: string[] = [];

  take({ topic, partition, offset }: LogRecord): void {
    const place = `${topic}/${partition}`;
    const next = this.#next.get(place) ?? 0;
    if (offset < next) this.found.push(`poll went back on ${place}: ${offset} after ${next - 1}`);
    this.#next.set(place, offset + 1);
  }
}

/** A poll that skips shows in the sequences: each reader must have seen, per partition, a prefix of what the log holds. */
export function skipped(
  reader: string,
  seen: ReadonlyMap<string, readonly number[]>,
  all: ReadonlyMap<string, readonly number[]>,
): string[] {
  return [...seen].flatMap(([place, offsets]) => {
    const wanted = all.get(place) ?? [];
    const at = offsets.findIndex((offset, n) => offset !== wanted[n]);
    return at < 0 ? [] : [`${reader} skipped on ${place}: ${offsets[at]} where ${wanted[at]} is next`];
  });
}
