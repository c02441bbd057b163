import {
  controlTopicOf,
  groupOf,
  headerText,
  parkedTopicOf,
  stateTopicOf,
  type Log,
  type LogRecord,
  type ProcessRunner,
} from '@headwater/core';
import { expectation, type Expectation } from './expectation.js';
import { OUTPUT, PROCESSOR } from './processor.js';

/** What the checks look at. */
export interface View {
  readonly log: Log;
  readonly topics: readonly string[];
  /** Timers up to this wall time must have fired. */
  readonly timersUntil: number;
  readonly runners: readonly ProcessRunner[];
}

/** Whether everything is handled, committed and closed. */
export async function quiet(view: View): Promise<boolean> {
  return (await unfinished(view)).length === 0;
}

/** What differs from f(input), in words. */
export async function differences(view: View): Promise<string[]> {
  const expected = await expectedNow(view);
  const texts = (records: readonly LogRecord[], text: (record: LogRecord) => string) => {
    const byKey = new Map<string, string[]>();
    for (const record of records) {
      const key = record.key!.toString();
      byKey.set(key, [...(byKey.get(key) ?? []), text(record)]);
    }
    return byKey;
  };
  const outputs = texts(await committed(view.log, OUTPUT), ({ value }) => value!.toString());
  const parked = texts(await committed(view.log, parkedTopicOf(PROCESSOR)), parkedText);
  return [
    ...(await unfinished(view)),
    ...lists('outputs of', outputs, expected.outputs),
    ...lists('parked of', parked, expected.parked),
    ...states('state topic', foldOf(await committed(view.log, stateTopicOf(PROCESSOR))), expected.state),
    ...states('live state', await liveStates(view.runners), expected.state),
  ];
}

async function expectedNow({ log, topics, timersUntil }: View): Promise<Expectation> {
  const input = (await Promise.all(topics.map((topic) => committed(log, topic)))).flat();
  const ends = (await Promise.all(topics.map((topic) => log.admin.offsets(topic)))).flat();
  return expectation(input, ends, timersUntil);
}

async function unfinished(view: View): Promise<string[]> {
  const { log, topics, runners } = view;
  const found = owners(runners, await log.admin.partitionCounts([OUTPUT]));
  for (const topic of [...topics, OUTPUT, parkedTopicOf(PROCESSOR), stateTopicOf(PROCESSOR)]) {
    for (const { partition, lastStable, high } of await log.admin.offsets(topic))
      if (lastStable < high) found.push(`a transaction is open on ${topic}/${partition}`);
  }
  if (found.length > 0) return found;
  for (const { topic, partition, committed: next, lag } of await log.admin.lag(groupOf(PROCESSOR), topics))
    if (lag > 0) found.push(`${topic}/${partition} is committed up to ${next}, ${lag} are left`);
  const fired = foldOf(await committed(log, stateTopicOf(PROCESSOR)));
  const entries = new Set([...fired.values()].flatMap((of) => [...of.keys()]));
  for (const id of (await expectedNow(view)).due) if (!entries.has(`s:fired-${id}`)) found.push(`${id} has not fired`);
  return found;
}

function lists(
  what: string,
  found: ReadonlyMap<string, readonly string[]>,
  wanted: ReadonlyMap<string, readonly string[]>,
): string[] {
  return [...new Set([...found.keys(), ...wanted.keys()])].sort().flatMap((key) => {
    const [is, should] = [found.get(key) ?? [], wanted.get(key) ?? []].map((of) => of.join(', '));
    return is === should ? [] : [`${what} ${key}: [${is}] instead of [${should}]`];
  });
}

function states(
  what: string,
  found: ReadonlyMap<number, ReadonlyMap<string, string>>,
  wanted: ReadonlyMap<number, ReadonlyMap<string, string>>,
): string[] {
  // How many batches of timers there were is not a matter of the input, nor is what the state was made from;
  // an input of which nothing is known may say so.
  const beside = [`o:${stateTopicOf(PROCESSOR)}`, `o:${controlTopicOf(PROCESSOR)}`, 'v:topology'];
  const text = (entries: ReadonlyMap<string, string> | undefined) =>
    [...(entries ?? [])]
      .filter(([entry, value]) => !beside.includes(entry) && !(entry.startsWith('o:') && value === '0'))
      .map(([entry, value]) => `${entry}=${value}`)
      .sort();
  return [...new Set([...found.keys(), ...wanted.keys()])].flatMap((partition) => {
    const [is, should] = [text(found.get(partition)), text(wanted.get(partition))];
    const [more, less] = [is.filter((of) => !should.includes(of)), should.filter((of) => !is.includes(of))];
    return more.length + less.length === 0
      ? []
      : [`${what} of partition ${partition}: has [${more.join(', ')}], lacks [${less.join(', ')}]`];
  });
}

function owners(runners: readonly ProcessRunner[], counts: ReadonlyMap<string, number>): string[] {
  const owned = runners.flatMap(({ tasks }) => [...tasks.keys()]).sort((a, b) => a - b);
  const all = Array.from({ length: counts.get(OUTPUT) ?? 0 }, (_, n) => n);
  return owned.join() === all.join() ? [] : [`partitions ${owned.join()} have owners instead of ${all.join()}`];
}

async function liveStates(runners: readonly ProcessRunner[]): Promise<Map<number, Map<string, string>>> {
  const states = new Map<number, Map<string, string>>();
  for (const { tasks } of runners) {
    for (const [partition, { state }] of tasks)
      states.set(
        partition,
        new Map((await state.dump()).map(([entry, value]) => [entry, entryText(entry, Buffer.from(value, 'base64'))])),
      );
  }
  return states;
}

/** The latest value per entry, per partition of the state topic. */
function foldOf(records: readonly LogRecord[]): Map<number, Map<string, string>> {
  const states = new Map<number, Map<string, string>>();
  for (const { partition, key, value } of records) {
    const entries = states.get(partition) ?? new Map<string, string>();
    states.set(partition, entries);
    if (value === null) entries.delete(key!.toString());
    else entries.set(key!.toString(), entryText(key!.toString(), value));
  }
  return states;
}

/** Of what is parked its code and origin: JSON behind its length, in front of the value. */
function entryText(entry: string, value: Buffer): string {
  if (!entry.startsWith('q:')) return value.toString();
  const { code, record } = JSON.parse(value.toString('utf8', 4, 4 + value.readUInt32BE(0))) as {
    readonly code: string;
    readonly record: Pick<LogRecord, 'topic' | 'partition' | 'offset'>;
  };
  return `${code} ${record.topic}/${record.partition}/${record.offset}`;
}

function parkedText({ headers }: LogRecord): string {
  const [topic, partition, offset] = ['topic', 'partition', 'offset'].map((of) =>
    headerText(headers, `hw_parked_${of}`),
  );
  return `${headerText(headers, 'hw_parked_code')} ${topic}/${partition}/${offset}`;
}

/** Everything visible now, by partition and offset. */
async function committed(log: Log, topic: string): Promise<LogRecord[]> {
  const reader = log.reader();
  const records: LogRecord[] = [];
  const left = new Map<number, number>();
  for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
    if (start >= lastStable) continue;
    left.set(partition, lastStable);
    reader.seek(topic, partition, start);
  }
  while (left.size > 0) {
    for (const batch of await reader.poll()) {
      records.push(...batch.records);
      if (batch.nextOffset >= (left.get(batch.partition) ?? 0)) left.delete(batch.partition);
    }
  }
  await reader.close();
  return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
}
