import { controlTopicOf, stateTopicOf } from '@headwater/core';
import type { Log, LogWriter } from '@headwater/core';
import type { Client } from 'pg';
import { resolveOptions } from './capture.options.js';
import type { CaptureOptions, ResolvedOptions } from './capture.options.js';
import { CaptureError } from './cdc.errors.js';
import { parkedNameOf } from './parking/parked-topics.js';
import { readRecords } from './position.js';
import { openSession, quoteName, textRows } from './postgres-session.js';
import { notCommitted } from './publish.errors.js';

/** What a capture keeps besides the records it has published. */
export interface CaptureRemains {
  readonly slot: boolean;
  readonly publication: boolean;
  /** Anything that it has written into its position topic. */
  readonly position: boolean;
  /** Versions of its tables in `schemasTopic`. */
  readonly schemas: boolean;
  /** `transactionsTopic`. */
  readonly transactions: boolean;
  /** What it has parked. The history of that, `….parked`, stays as published records do. */
  readonly parked: boolean;
}

export type DropOptions = Pick<
  CaptureOptions,
  | 'name'
  | 'connectionString'
  | 'log'
  | 'slot'
  | 'publication'
  | 'positionTopic'
  | 'schemasTopic'
  | 'transactionsTopic'
  | 'transactionalId'
> &
  Partial<Pick<CaptureOptions, 'tables'>>;

/** What `dropCapture` would remove now. Rejects with CDC_SLOT_BUSY while the slot has a reader. Changes nothing. */
export async function captureRemains(options: DropOptions): Promise<CaptureRemains> {
  return withSession(options, (resolved, sql) => look(resolved, sql));
}

/**
 * Removes slot, publication, what is parked, position, the recorded versions of `tables` and the topic of transactions of a capture that does not run, and
 * resolves with what was there. The records of its tables stay. The slot goes first and the position last: after a crash in between a start is refused
 * (CDC_SLOT_MISSING), and a second call removes the rest.
 */
export async function dropCapture(options: DropOptions): Promise<CaptureRemains> {
  return withSession(options, async (resolved, sql) => {
    const remains = await look(resolved, sql);
    if (remains.slot) await dropSlot(sql, resolved.slot);
    if (remains.publication) await sql.query(`DROP PUBLICATION IF EXISTS ${quoteName(resolved.publication)}`);
    if (remains.parked) await resolved.log.admin.deleteTopics(await parkedState(resolved));
    if (remains.position || remains.schemas || remains.transactions) await dropTopics(resolved, remains);
    return remains;
  });
}

async function withSession<T>(
  options: DropOptions,
  work: (resolved: ResolvedOptions, sql: Client) => Promise<T>,
): Promise<T> {
  const resolved = resolveOptions({ tables: [], snapshot: 'never', outbox: false, ...options });
  const sql = await openSession(resolved.connectionString, resolved.name);
  try {
    return await work(resolved, sql);
  } finally {
    await sql.end().catch(() => undefined); // lost is as good as ended
  }
}

async function look(options: ResolvedOptions, sql: Client): Promise<CaptureRemains> {
  const [slot] = await textRows(sql, 'SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1', [
    options.slot,
  ]);
  if (slot?.[0] != null) throw busy(options.slot, slot[0]);
  const publications = await textRows(sql, 'SELECT 1 FROM pg_publication WHERE pubname = $1', [options.publication]);
  const { log, positionTopic, schemasTopic, transactionsTopic } = options;
  const position = await keysOf(log, positionTopic, isOfPosition(options));
  const schemas = await keysOf(log, schemasTopic, isOfSchemas(options));
  const transactions = transactionsTopic === undefined ? [] : [transactionsTopic];
  return {
    slot: slot !== undefined,
    publication: publications.length > 0,
    position: position.own.length > 0 || (position.exists && isOwnTopic(options)),
    schemas: schemas.own.length > 0 || (schemas.exists && !schemas.others),
    transactions: (await log.admin.partitionCounts(transactions)).size > 0,
    parked: (await parkedState(options)).length > 0,
  };
}

/** The topics of what is parked now, and of orders for it, as far as they are there. */
async function parkedState({ log, name }: ResolvedOptions): Promise<string[]> {
  const of = parkedNameOf(name);
  return [...(await log.admin.partitionCounts([stateTopicOf(of), controlTopicOf(of)])).keys()];
}

async function dropSlot(sql: Client, slot: string): Promise<void> {
  try {
    await sql.query('SELECT pg_drop_replication_slot($1)', [slot]);
  } catch (error) {
    const { code } = error as { code?: unknown };
    // Gone since it was looked at; or taken by a capture that was started since.
    if (code === '42704') return;
    if (code === '55006') throw busy(slot, 'unknown', error);
    throw error;
  }
}

function busy(slot: string, pid: string, cause?: unknown): CaptureError {
  return new CaptureError(
    'CDC_SLOT_BUSY',
    `slot "${slot}" is active: pid ${pid} of PostgreSQL reads from it. Nothing was removed. Stop its capture, then type the same again.`,
    { slot, pid },
    cause,
  );
}

/** A topic that holds nothing else is deleted; from any other only what this capture wrote is taken back. */
async function dropTopics(options: ResolvedOptions, remains: CaptureRemains): Promise<void> {
  const { log, positionTopic, schemasTopic, transactionsTopic, transactionalId } = options;
  const writer = log.writer({ transactionalId });
  try {
    // An instance that was cut off from the slot could otherwise still commit what it has in flight.
    await writer.fence();
    if (remains.transactions) await log.admin.deleteTopics([transactionsTopic!]);
    if (remains.schemas) await takeBack(writer, log, schemasTopic!, true, isOfSchemas(options));
    if (remains.position) await takeBack(writer, log, positionTopic, isOwnTopic(options), isOfPosition(options));
  } finally {
    await writer.close();
  }
}

async function takeBack(
  writer: LogWriter,
  log: Log,
  topic: string,
  deletes: boolean,
  isOwn: (key: string) => boolean,
): Promise<void> {
  const { own, others } = await keysOf(log, topic, isOwn);
  if (deletes && !others) return log.admin.deleteTopics([topic]);
  const outcome = await writer.transact(own.map((key) => ({ topic, partition: 0, key, value: null })));
  if (outcome.outcome !== 'committed') throw notCommitted(outcome, writer.transactionalId);
}

const isOfPosition =
  ({ name }: ResolvedOptions) =>
  (key: string): boolean =>
    key === name || key.startsWith(`${name}/`);

const isOfSchemas =
  ({ tables }: ResolvedOptions) =>
  (key: string): boolean =>
    tables.some(({ table }) => table === key);

const isOwnTopic = ({ name, positionTopic }: ResolvedOptions): boolean =>
  positionTopic === resolveOptions({ ...NOTHING, name }).positionTopic;

const NOTHING = {
  connectionString: '',
  log: undefined as unknown as Log,
  tables: [],
  snapshot: 'never',
  outbox: false,
} as const;

interface TopicKeys {
  readonly exists: boolean;
  /** The live keys of this capture. */
  readonly own: readonly Buffer[];
  /** Whether others have written there. */
  readonly others: boolean;
}

async function keysOf(log: Log, topic: string | undefined, isOwn: (key: string) => boolean): Promise<TopicKeys> {
  if (topic === undefined || !(await log.admin.partitionCounts([topic])).has(topic))
    return { exists: false, own: [], others: false };
  const live = new Set<string>();
  for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
    if (start >= lastStable) continue;
    await readRecords(log, topic, partition, start, lastStable, ({ key, value }) => {
      if (key !== null) live[value === null ? 'delete' : 'add'](key.toString());
    });
  }
  const own = [...live].filter(isOwn).map((key) => Buffer.from(key));
  return { exists: true, own, others: [...live].some((key) => !isOwn(key)) };
}
