import { randomUUID } from 'node:crypto';
import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import { encodeMessage } from '../model/codec.js';
import { envelopeFields } from '../model/envelope.js';
import type { Sql } from './database.js';

export interface EmitOptions {
  /** CloudEvents source: who says it. */
  readonly source: string;
  /** Default: a random id, drawn once, so every redelivery from the WAL carries the same. */
  readonly id?: string;
  readonly correlation?: string | undefined;
  readonly causation?: string | undefined;
}

/** A message that has its envelope already. */
export interface TextMessage {
  readonly topic: string;
  readonly key: string;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

// As text: Prisma's adapters know no pg_lsn.
export const EMIT_SQL = 'SELECT headwater.emit($1, $2, $3, $4::jsonb)::text AS lsn';
export const EMIT_NOW_SQL = 'SELECT headwater.emit_now($1, $2, $3, $4::jsonb)::text AS lsn';
export const CONTEXT_SQL = 'SELECT headwater.context($1::jsonb)::text AS lsn';

/**
 * Puts a message into the transaction of `sql`: it is published when, and only when, that transaction commits, together with its rows.
 * Throws ContractError before anything is written when the message breaks its contract; OUTBOX_MESSAGE_TOO_LARGE and
 * OUTBOX_MESSAGE_INVALID by the database, which ends the transaction. `sql` is trusted to be in a transaction: `outbox.emit` asks.
 */
export async function emit(sql: Sql, message: object, options: EmitOptions): Promise<void> {
  await emitText(sql, textMessage(message, options));
}

/** The raw form of `emit`, for messages that have their envelope already. */
export async function emitText(sql: Sql, message: TextMessage): Promise<void> {
  await run(sql, EMIT_SQL, parameters(message));
}

/** As `emit`, but published also when the transaction of `sql` rolls back: for attempts, refusals, measurements. */
export async function emitNow(sql: Sql, message: object, options: EmitOptions): Promise<void> {
  await run(sql, EMIT_NOW_SQL, parameters(textMessage(message, options)));
}

/**
 * Headers for every record of the transaction of `sql`: `traceparent`, `tracestate`, `baggage` and names that begin with `hw_`,
 * 1,024 bytes in all. It must come before the first row or message of the transaction; a later one is counted and passed by.
 */
export async function emitContext(sql: Sql, fields: Readonly<Record<string, string>>): Promise<void> {
  await run(sql, CONTEXT_SQL, [JSON.stringify(fields)]);
}

function textMessage(message: object, options: EmitOptions): TextMessage {
  const encoded = encodeMessage(message);
  return {
    topic: encoded.topic,
    key: encoded.key,
    value: encoded.value,
    headers: envelopeFields({
      id: options.id ?? randomUUID(),
      type: encoded.type,
      source: options.source,
      subject: encoded.key,
      time: new Date().toISOString(),
      correlation: options.correlation,
      causation: options.causation,
    }),
  };
}

function parameters({ topic, key, value, headers }: TextMessage): readonly string[] {
  return [topic, key, value, JSON.stringify(headers)];
}

const REFUSALS: Readonly<Record<string, string>> = {
  HW001: 'OUTBOX_MESSAGE_TOO_LARGE',
  HW002: 'OUTBOX_MESSAGE_INVALID',
};

async function run(sql: Sql, text: string, values: readonly string[]): Promise<void> {
  try {
    await sql.query(text, values);
  } catch (error) {
    const code = REFUSALS[sqlState(error) ?? ''];
    if (code === undefined) throw error;
    throw new HeadwaterError(code, errorMessage(error), { cause: error });
  }
}

/** The SQLSTATE of a server's error, also when an ORM wrapped it: the innermost code counts, Prisma's own look alike. */
export function sqlState(error: unknown, depth = 0): string | undefined {
  if (typeof error !== 'object' || error === null || depth > 5) return undefined;
  const { cause, driverError, meta, originalCode, code } = error as Readonly<Record<string, unknown>>;
  const wrapped = [driverError, cause, (meta as Readonly<Record<string, unknown>> | undefined)?.['driverAdapterError']];
  for (const inner of wrapped) {
    const found = sqlState(inner, depth + 1);
    if (found !== undefined) return found;
  }
  return [originalCode, code].find((text): text is string => typeof text === 'string' && /^[0-9A-Z]{5}$/.test(text));
}
