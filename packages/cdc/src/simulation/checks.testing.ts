import type { Log, LogRecord } from '@headwater/core';
import { headerText, partitionOf } from '@headwater/core';
import type { Lsn } from '../lsn.js';
import { readRecords } from '../position.js';
import { jsonOf, MESSAGES, TABLES } from './database.testing.js';
import type { Expected, SimulatedDatabase } from './database.testing.js';

export const TOPICS = [...TABLES.map(({ name }) => name), MESSAGES];

export interface Wanted {
  /** The place in the WAL from which everything is wanted. */
  readonly from: Lsn;
  /** Not when the slot was tampered with: then a snapshot stands for what is gone. */
  readonly exact: boolean;
  /** Not without a snapshot: the topics lack what was there before. */
  readonly fold: boolean;
}

/** What differs from what the database committed, in words. */
export async function differences(
  log: Log,
  database: SimulatedDatabase,
  { from, exact, fold }: Wanted,
): Promise<string[]> {
  const wrong: string[] = [];
  const expected = database.wal.filter(({ at }) => at >= from).flatMap((of) => of.expected);
  for (const topic of TOPICS) {
    const bounds = await log.admin.offsets(topic);
    const found: LogRecord[][] = [];
    for (const { partition, start, lastStable, high } of bounds) {
      if (lastStable < high) wrong.push(`${topic}-${partition}: a transaction is open`);
      const records: LogRecord[] = [];
      await readRecords(log, topic, partition, start, lastStable, (record) => records.push(record));
      found.push(records);
      if (exact) {
        const wanted = expected
          .filter((of) => of.topic === topic && partitionOf(Buffer.from(of.key), bounds.length) === partition)
          .map(textOf);
        wrong.push(...compared(`${topic}-${partition}`, records.filter(isStreamed).map(textOfRecord), wanted));
      }
    }
    wrong.push(...repeated(topic, found.flat(), exact));
    if (topic !== MESSAGES) wrong.push(...takenBack(topic, found.flat()));
    if (fold && topic !== MESSAGES) wrong.push(...folded(topic, found, database));
  }
  return wrong;
}

function isStreamed(record: LogRecord): boolean {
  return !headerText(record.headers, 'hw_tx')!.startsWith('snapshot-');
}

function textOf({ key, value, op, tx, seq }: Expected): string {
  return `${tx}/${seq} ${op} ${key} ${value}`;
}

function textOfRecord({ key, value, headers }: LogRecord): string {
  const header = (name: string) => headerText(headers, name) ?? '';
  return `${header('hw_tx')}/${header('hw_seq')} ${header('hw_op')} ${key?.toString()} ${value?.toString() ?? null}`;
}

/** In this order, each once: the first place where they part says enough. */
function compared(what: string, found: readonly string[], wanted: readonly string[]): string[] {
  const at = wanted.findIndex((text, i) => found[i] !== text);
  const first = at < 0 ? wanted.length : at;
  if (at < 0 && found.length === wanted.length) return [];
  return [
    `${what}: record ${first} is ${found[first] ?? 'missing'}, wanted ${wanted[first] ?? 'none'} (${found.length} of ${wanted.length})`,
  ];
}

/** Each record of a source transaction or a chunk once; each row at most once by the only snapshot there is. */
function repeated(topic: string, records: readonly LogRecord[], exact: boolean): string[] {
  const seen = new Set<string>();
  return records.flatMap((record) => {
    const header = (name: string) => headerText(record.headers, name) ?? '';
    const ids = [`${header('hw_tx')}/${header('hw_seq')}`];
    if (exact && header('hw_op') === 'r') ids.push(`row ${record.key?.toString()} of the snapshot`);
    return ids.flatMap((id) => {
      if (seen.has(id)) return [`${topic}: ${id} twice`];
      seen.add(id);
      return [];
    });
  });
}

/** Versions only grow, and a key that is gone stays gone: none comes back in this workload. */
function takenBack(topic: string, records: readonly LogRecord[]): string[] {
  const last = new Map<string, number>();
  return records.flatMap(({ key, value }) => {
    const id = key!.toString();
    const before = last.get(id) ?? 0;
    const version = value === null ? Infinity : Number(/"v":"v(\d+)"/.exec(value.toString())![1]);
    last.set(id, version);
    if (version >= before) return [];
    const all = records.filter((of) => of.key!.toString() === id).map(textOfRecord);
    return [`${topic}: ${id} went back from version ${before} to ${version}: ${all.join(', ')}`];
  });
}

function folded(topic: string, partitions: readonly (readonly LogRecord[])[], database: SimulatedDatabase): string[] {
  const fold = new Map<string, string>();
  for (const { key, value } of partitions.flat()) {
    if (value === null) fold.delete(key!.toString());
    else fold.set(key!.toString(), value.toString());
  }
  const table = TABLES.find(({ name }) => name === topic)!;
  const rows = new Map([...database.rows.get(topic)!].map(([id, row]) => [id, jsonOf(table, row)]));
  const text = (of: ReadonlyMap<string, string>) => [...of].toSorted(([a], [b]) => Number(a) - Number(b)).join(' ');
  return text(fold) === text(rows) ? [] : [`${topic}: the fold is not the table: ${text(fold)} | ${text(rows)}`];
}
