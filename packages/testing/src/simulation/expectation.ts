import type { LogRecord, TopicPartition } from '@headwater/core';
import { deedOf } from './workload.js';

/** What one undisturbed pass over the input gives: f(input). */
export interface Expectation {
  /** Output texts per key, in order. */
  readonly outputs: ReadonlyMap<string, readonly string[]>;
  /** Parked records per key, in order: code and origin. */
  readonly parked: ReadonlyMap<string, readonly string[]>;
  /** Entries of the state topic per partition; what is parked as its code and origin. */
  readonly state: ReadonlyMap<number, ReadonlyMap<string, string>>;
  /** Timers that must have fired. */
  readonly due: readonly string[];
}

const PARKED_AS = { poison: 'CONTRACT_VIOLATED', broken: 'HANDLER_FAILED', big: 'RECORD_TOO_LARGE' } as const;

/** `input`: the committed records, by topic, partition and offset; `ends`: where the log of each input ends. `until`: timers up to this wall time have fired. */
export function expectation(
  input: readonly LogRecord[],
  ends: readonly (TopicPartition & { readonly high: number })[],
  until: number,
): Expectation {
  const outputs = new Map<string, string[]>();
  const parked = new Map<string, string[]>();
  const state = new Map<number, Map<string, string>>();
  const add = (to: Map<string, string[]>, key: string, text: string) =>
    void to.set(key, [...(to.get(key) ?? []), text]);
  for (const { topic, partition, high } of ends) {
    // Nothing was written there, so nothing is known of it.
    if (high > 0) entriesOf(state, partition).set(`o:${topic}`, String(high));
  }
  for (const record of input) {
    const { partition } = record;
    const key = record.key!.toString();
    const entries = entriesOf(state, partition);
    const origin = originOf(record);
    const lock = `p:${record.key!.toString('base64')}`;
    const did = deedOf(record);
    const park = (code: string) => {
      add(parked, key, `${code} ${origin}`);
      const before = Number(entries.get(lock)?.split(' ')[1] ?? '0');
      entries.set(lock, `0 ${before + 1}`);
      entries.set(`q:${lock.slice(2)}/${before}`, `${code} ${origin}`);
    };
    if (entries.has(lock)) park('KEY_PARKED');
    else if (did.deed === 'poison' || did.deed === 'broken' || did.deed === 'big') park(PARKED_AS[did.deed]);
    else if (did.deed === 'forget') entries.delete(`s:${key}`);
    else if (did.deed === 'timer') entries.set(`t:${did.id}`, String(did.atMs));
    else if (did.deed === 'cancel') entries.delete(`t:${did.id}`);
    else {
      const sum = Number(entries.get(`s:${key}`) ?? '0') + did.n;
      entries.set(`s:${key}`, String(sum));
      add(outputs, key, `${origin} ${sum}`);
    }
  }
  const due: string[] = [];
  for (const entries of state.values()) {
    const timers = [...entries].filter(([entry, atMs]) => entry.startsWith('t:') && Number(atMs) <= until);
    for (const [entry, atMs] of timers) {
      const id = entry.slice(2);
      due.push(id);
      entries.delete(entry);
      entries.set(`s:fired-${id}`, atMs);
      add(outputs, id, atMs);
    }
  }
  return { outputs, parked, state, due };
}

function entriesOf(state: Map<number, Map<string, string>>, partition: number): Map<string, string> {
  const entries = state.get(partition) ?? new Map<string, string>();
  state.set(partition, entries);
  return entries;
}

export function originOf({ topic, partition, offset }: LogRecord): string {
  return `${topic}/${partition}/${offset}`;
}
