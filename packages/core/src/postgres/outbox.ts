import { randomUUID } from 'node:crypto';
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

export const EMIT_SQL = 'SELECT headwater.emit($1, $2, $3, $4::jsonb)';

/**
 * Puts a message into the transaction of `sql`: it is published when, and only when, that transaction commits, together with its rows.
 * Throws ContractError before anything is written when the message breaks its contract.
 */
export async function emit(sql: Sql, message: object, options: EmitOptions): Promise<void> {
  const encoded = encodeMessage(message);
  await emitText(sql, {
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
  });
}

/** The raw form of `emit`, for messages that have their envelope already. */
export async function emitText(
  sql: Sql,
  message: {
    readonly topic: string;
    readonly key: string;
    readonly value: string;
    readonly headers: Readonly<Record<string, string>>;
  },
): Promise<void> {
  await sql.query(EMIT_SQL, [message.topic, message.key, message.value, JSON.stringify(message.headers)]);
}
