import {
  ContractError,
  Rejected,
  backoffMs,
  decodeMessage,
  emit,
  emitText,
  envelopeFields,
  errorCode,
  errorMessage,
  headerText,
  modelOf,
  systemClock,
  type ApplyDefinition,
  type LogRecord,
  type MessageClass,
  type Sql,
} from '@headwater/core';
import type { Reply } from './decide.js';
import { readInbox, writeInbox, type InboxOutcome } from './inbox.js';
import type { SqlContext } from './participant.js';

/** A handler with the instance it lives on. */
export interface BoundHandler {
  readonly command: MessageClass;
  readonly handle: (command: object, context: SqlContext) => unknown;
}

interface PreparedCommand {
  readonly id: string;
  readonly handler: BoundHandler;
  readonly command: object;
  readonly sagaId: string;
  readonly replyTo: string | undefined;
  readonly step: string;
  readonly direction: 'do' | 'undo';
  readonly undoes: string | undefined;
}

const ATTEMPTS = 3;

export const participantOf = (topic: string): string => `participant.${topic}`;

/** All handlers of one command topic as an apply definition: inbox rows, business rows, replies and offsets in one transaction. */
export function applyParticipant(topic: string, handlers: readonly BoundHandler[]): ApplyDefinition<PreparedCommand> {
  const byType = new Map(handlers.map((handler) => [modelOf(handler.command)!.type, handler]));
  return {
    consumer: participantOf(topic),
    topics: [topic],
    prepare: (record) => prepare(record, byType),
    write: async (commands, sql) => {
      const inbox = await readInbox(
        sql,
        commands.flatMap((command) => (command.undoes === undefined ? [command.id] : [command.id, command.undoes])),
      );
      const entries = new Map<string, InboxOutcome>();
      const outcomeOf = (id: string) => entries.get(id) ?? inbox.get(id);
      for (const command of commands) {
        // I1: one effect per command id, however often it is delivered. I2: a do after its undo is refused the same way.
        if (outcomeOf(command.id) !== undefined) continue;
        const reply = await execute(command, sql, outcomeOf, (id) => entries.set(id, 'cancelled'));
        entries.set(command.id, reply.outcome);
        if (command.replyTo !== undefined) await sendReply(sql, command, command.replyTo, reply);
      }
      await writeInbox(sql, entries);
    },
    onParked: (record, error, sql) => tellParked(record, error, sql),
  };
}

/** I4: the saga learns that its command waits for an operator. The command may still happen, so this is no failure: its reply comes later. */
async function tellParked(record: LogRecord, error: unknown, sql: Sql): Promise<void> {
  const [id, sagaId, replyTo, step] = ['ce_id', 'hw_correlation', 'hw_reply_to', 'hw_step'].map((name) =>
    headerText(record.headers, name),
  );
  if (id === undefined || sagaId === undefined || replyTo === undefined || step === undefined) return;
  const direction = headerText(record.headers, 'hw_direction') === 'undo' ? 'undo' : 'do';
  const reply: Reply = { step, direction, outcome: 'parked', reason: errorMessage(error) };
  await sendReply(sql, { id, sagaId }, replyTo, reply, 'parked');
}

function prepare(record: LogRecord, byType: ReadonlyMap<string, BoundHandler>): PreparedCommand {
  const type = headerText(record.headers, 'ce_type') ?? '';
  const id = headerText(record.headers, 'ce_id');
  const handler = byType.get(type);
  if (handler === undefined)
    throw new ContractError(`command ${type || '(no ce_type)'}`, [`nothing handles it on topic ${record.topic}`]);
  if (id === undefined || record.value === null)
    throw new ContractError(`command ${type}`, ['ce_id or value is missing']);
  return {
    id,
    handler,
    command: decodeMessage(handler.command, record.value),
    sagaId: headerText(record.headers, 'hw_correlation') ?? '',
    replyTo: headerText(record.headers, 'hw_reply_to'),
    step: headerText(record.headers, 'hw_step') ?? '',
    direction: headerText(record.headers, 'hw_direction') === 'undo' ? 'undo' : 'do',
    undoes: headerText(record.headers, 'hw_undoes'),
  };
}

async function execute(
  command: PreparedCommand,
  sql: Sql,
  outcomeOf: (id: string) => InboxOutcome | undefined,
  cancel: (id: string) => void,
): Promise<Reply & { readonly outcome: Exclude<Reply['outcome'], 'parked'> }> {
  const { step, direction, undoes } = command;
  if (undoes !== undefined) {
    const done = outcomeOf(undoes);
    // I3: what never happened needs no undo, and will not happen any more.
    if (done === undefined) cancel(undoes);
    if (done !== 'ok') return { step, direction, outcome: 'ok' };
  }
  for (let attempt = 1; ; attempt++) {
    await sql.query('SAVEPOINT command');
    try {
      const result = await command.handler.handle(command.command, contextOf(command, sql));
      await sql.query('RELEASE SAVEPOINT command');
      return { step, direction, outcome: 'ok', ...(result === undefined ? {} : { result }) };
    } catch (error) {
      // A transaction that is lost or doomed as a whole is the engine's to repeat.
      if (spoilsTransaction(error)) throw error;
      await sql.query('ROLLBACK TO SAVEPOINT command');
      if (error instanceof Rejected) return { step, direction, outcome: 'rejected', reason: error.reason };
      if (attempt >= ATTEMPTS) return { step, direction, outcome: 'failed', reason: errorMessage(error) };
      await systemClock.wait(backoffMs(attempt, 10));
    }
  }
}

function contextOf(command: PreparedCommand, sql: Sql): SqlContext {
  return {
    sql,
    commandId: command.id,
    sagaId: command.sagaId,
    emit: (message) =>
      emit(sql, message, { source: 'participant', correlation: command.sagaId, causation: command.id }),
  };
}

async function sendReply(
  sql: Sql,
  command: Pick<PreparedCommand, 'id' | 'sagaId'>,
  topic: string,
  reply: Reply,
  what: 'reply' | 'parked' = 'reply',
): Promise<void> {
  await emitText(sql, {
    topic,
    key: command.sagaId,
    value: JSON.stringify(reply, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
    headers: envelopeFields({
      id: `${command.id}:${what}`,
      type: 'Reply',
      source: 'participant',
      subject: command.sagaId,
      time: new Date().toISOString(),
      correlation: command.sagaId,
      causation: command.id,
    }),
  });
}

/** Serialization failure, deadlock, lock or statement time-out, lost connection, shutdown, by code. A dead connection without one fails the ROLLBACK TO next. */
function spoilsTransaction(error: unknown): boolean {
  const code = errorCode(error) ?? '';
  return code === '40001' || code === '40P01' || /^(08|53|55|57)/.test(code) || /^E(CONN|PIPE|TIMEDOUT)/.test(code);
}
