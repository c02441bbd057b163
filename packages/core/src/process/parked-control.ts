import { randomUUID } from 'node:crypto';
import { systemClock, type Clock } from '../clock/clock.js';
import { HeadwaterError } from '../errors/headwater.error.js';
import { headerText } from '../log/headers.js';
import type { Log, LogRecord } from '../log/log.js';
import { readCommitted } from '../log/read-committed.js';
import { decodeControlEvent, encodeControl, type ControlResult, type ParkedAct } from './control.js';
import { decodeParkedUnit, type ParkedUnit } from './parked-unit.js';
import { decodeBounds, unitEntry } from './parked-sequence.js';
import { parkedTopicOf, stateTopicOf } from './processor.js';

/** What is parked under one name: the records of a key, in order; a timer; or one record without key. */
export interface ParkedSequence {
  readonly processor: string;
  readonly partition: number;
  /** Names it for `showParked` and `controlParked`. */
  readonly sequence: string;
  /** As text, of a record with a key; the timer's id of a timer. */
  readonly key: string | undefined;
  readonly units: readonly ParkedUnit[];
}

export interface ControlRequest {
  readonly processor: string;
  /** As listed; or the key itself, as text. */
  readonly sequence: string;
  readonly act: ParkedAct;
  /** Kept with the result. Neither may be empty. */
  readonly reason: string;
  readonly by: string;
  /** How long to wait for a running instance to do it. Default 15,000. */
  readonly patienceMs?: number;
  readonly clock?: Clock;
}

/** `waiting`: the order is in the log, and will be carried out once by the processor, as soon as it runs. */
export type Controlled = ControlResult | { readonly outcome: 'waiting' };

const POLL_MS = 200;

/** Everything a processor has parked, as its last commit left it, by partition. Reads the whole state topic. */
export async function listParked(log: Log, processor: string): Promise<readonly ParkedSequence[]> {
  const entries = new Map<number, Map<string, Buffer>>();
  await readCommitted(log, stateTopicOf(processor), ({ partition, key, value }) => {
    const entry = key?.toString('utf8') ?? '';
    if (!/^[pq]:/.test(entry)) return;
    let kept = entries.get(partition);
    if (kept === undefined) entries.set(partition, (kept = new Map()));
    if (value === null) kept.delete(entry);
    else kept.set(entry, value);
  });
  return [...entries].sort(([a], [b]) => a - b).flatMap(([partition, kept]) => sequencesOf(processor, partition, kept));
}

/** One sequence with all its units. Rejects with PROCESS_NOT_PARKED when there is none of that name, or a key stands in several topics. */
export async function showParked(log: Log, processor: string, sequence: string): Promise<ParkedSequence> {
  const listed = await listParked(log, processor);
  const named = listed.find((one) => one.sequence === sequence);
  if (named !== undefined) return named;
  const keyed = listed.filter((one) => one.key === sequence);
  const topics = new Set(keyed.flatMap(({ units: [first] }) => topicOf(first!) ?? []));
  if (keyed.length === 0 || topics.size > 1) throw notParked(processor, sequence, keyed);
  return keyed[0]!;
}

/**
 * Asks the task that has it to handle a parked sequence again, to change it or to drop it; done exactly once, in a transaction of the
 * task, and kept in the parked topic with reason and name. Resolves when it is done, or `waiting` when nobody did it in time.
 */
export async function controlParked(log: Log, request: ControlRequest): Promise<Controlled> {
  const { processor, act, reason, by, clock = systemClock, patienceMs = 15_000 } = request;
  if (reason.trim() === '' || by.trim() === '') throw reasonMissing(processor);
  const { partition, sequence } = await showParked(log, processor, request.sequence);
  const parkedTopic = parkedTopicOf(processor);
  const end = (await log.admin.offsets(parkedTopic)).find((of) => of.partition === partition)!.lastStable;
  const id = randomUUID();
  await append(log, encodeControl(processor, partition, { ...act, id, sequence, reason, by }));
  const from = new Map([[partition, end]]);
  const givesUpAt = clock.elapsed() + patienceMs;
  for (;;) {
    let event: LogRecord | undefined;
    const take = (record: LogRecord) => {
      if (headerText(record.headers, 'hw_control') === id) event = record;
    };
    try {
      await readCommitted(log, parkedTopic, take, from);
    } catch (error) {
      // The order stands: whoever gave it once more would have it done twice.
      if (!(error instanceof HeadwaterError && error.retryable)) throw error;
    }
    if (event !== undefined) return decodeControlEvent(event);
    if (clock.elapsed() >= givesUpAt) return { outcome: 'waiting' };
    await clock.wait(POLL_MS);
  }
}

function sequencesOf(processor: string, partition: number, kept: ReadonlyMap<string, Buffer>): ParkedSequence[] {
  return [...kept]
    .filter(([entry]) => entry.startsWith('p:'))
    .map(([entry, value]) => {
      const sequence = entry.slice(2);
      const { first, next } = decodeBounds(value);
      const units = Array.from({ length: next - first }, (_, i) =>
        decodeParkedUnit(kept.get(unitEntry(sequence, first + i))!),
      );
      return { processor, partition, sequence, key: keyOf(units[0]!), units };
    });
}

function topicOf({ unit }: ParkedUnit): string | undefined {
  return 'record' in unit ? unit.record.topic : undefined;
}

function keyOf({ unit }: ParkedUnit): string | undefined {
  return 'timer' in unit ? unit.timer.id : unit.record.key?.toString('utf8');
}

async function append(log: Log, record: ReturnType<typeof encodeControl>): Promise<void> {
  const writer = log.writer({ transactionalId: `headwater.control.${randomUUID()}` });
  try {
    await writer.fence();
    const end = await writer.transact([record]);
    if (end.outcome !== 'committed') throw notWritten(record.topic, end.outcome, end.cause);
  } finally {
    await writer.close();
  }
}

function notParked(processor: string, sequence: string, keyed: readonly ParkedSequence[]): HeadwaterError {
  const several = keyed.map((one) => one.sequence).join(', ');
  return new HeadwaterError(
    'PROCESS_NOT_PARKED',
    `${processor} has ${keyed.length === 0 ? 'nothing' : `several things`} parked under "${sequence}"${keyed.length === 0 ? '' : `; name one: ${several}`}. See what is: listParked, or headwater parked list ${processor}.`,
    { facts: { processor, sequence } },
  );
}

function reasonMissing(processor: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_REASON_MISSING',
    'whoever changes what is parked says who they are and why: both are kept. Give a reason and a name.',
    { facts: { processor } },
  );
}

function notWritten(topic: string, outcome: string, cause: unknown): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_CONTROL_UNSENT',
    `the order was not written to ${topic} for certain (${outcome}). Look at what is parked, then ask again.`,
    { retryable: true, facts: { topic, outcome }, cause },
  );
}
