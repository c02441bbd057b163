import type { Header, OutRecord } from '@headwater/core';
import { errorMessage } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import type { SourceHeaders } from './rows.js';

/** The prefix of logical messages that capture routes. */
export const OUTBOX_PREFIX = 'headwater';

/** The prefix of the message whose fields become headers of all records of its transaction. */
export const CONTEXT_PREFIX = 'headwater.ctx';

/** Topics of positions: a message into them would forge what is durable. */
const OWN_TOPICS = 'headwater.cdc.';

/** The record an outbox message asks for. Its own headers come first, then where it stood in the WAL. */
export function outboxRecord(content: Buffer, source: SourceHeaders, seq: number, at: string): OutRecord {
  try {
    const message: unknown = JSON.parse(content.toString('utf8'));
    if (!isOutboxMessage(message)) throw new TypeError('topic, key, value or headers are missing or of a wrong type');
    if (message.topic.startsWith(OWN_TOPICS)) throw new TypeError(`topic ${message.topic} is capture's own`);
    const headers: Header[] = Object.entries(message.headers ?? {}).map(([name, text]) => [name, Buffer.from(text)]);
    headers.push(source.lsn, ['hw_seq', Buffer.from(String(seq))], source.tx, source.ts);
    // What the message says of itself comes before what its transaction says.
    headers.push(...(source.context ?? []).filter(([name]) => message.headers?.[name] === undefined));
    return {
      topic: message.topic,
      key: message.key === null ? null : Buffer.from(message.key),
      value: message.value === null ? null : Buffer.from(message.value),
      headers,
      // A record without a key has no partition of its own: all of them keep their order on the first one.
      ...(message.key === null ? { partition: 0 } : {}),
    };
  } catch (error) {
    throw invalidMessage(OUTBOX_PREFIX, at, errorMessage(error), error);
  }
}

const CONTEXT_NAME = /^(traceparent|tracestate|baggage|hw_[a-z0-9_]+)$/;
const CAPTURE_NAMES = new Set(['hw_op', 'hw_lsn', 'hw_seq', 'hw_tx', 'hw_ts', 'hw_table', 'hw_unchanged']);

/** The headers a context message asks for. */
export function contextHeaders(content: Buffer, at: string): readonly Header[] {
  try {
    const fields: unknown = JSON.parse(content.toString('utf8'));
    if (typeof fields !== 'object' || fields === null) throw new TypeError('it is no object');
    return Object.entries(fields).map(([name, text]) => {
      if (!CONTEXT_NAME.test(name) || CAPTURE_NAMES.has(name)) throw new TypeError(`"${name}" is no name for it`);
      if (typeof text !== 'string') throw new TypeError(`${name} is no text`);
      return [name, Buffer.from(text)];
    });
  } catch (error) {
    throw invalidMessage(CONTEXT_PREFIX, at, errorMessage(error), error);
  }
}

export function invalidMessage(prefix: string, at: string, why: string, cause?: unknown): CaptureError {
  return new CaptureError(
    'CDC_MESSAGE_INVALID',
    `logical message with prefix "${prefix}" at ${at} is not an outbox message: ${why}. ` +
      'It was not routed. Emit messages through the outbox only, or use another prefix.',
    { lsn: at },
    cause,
  );
}

interface OutboxMessage {
  readonly topic: string;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

function isOutboxMessage(message: unknown): message is OutboxMessage {
  if (typeof message !== 'object' || message === null) return false;
  const { topic, key, value, headers } = message as Record<string, unknown>;
  const text = (item: unknown) => item === null || typeof item === 'string';
  const texts = (item: unknown) =>
    item === undefined ||
    (typeof item === 'object' && item !== null && Object.values(item).every((field) => typeof field === 'string'));
  return typeof topic === 'string' && topic !== '' && text(key) && text(value) && texts(headers);
}
