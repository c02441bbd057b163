import type { Header, OutRecord } from '@headwater/core';
import { errorMessage } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import type { SourceHeaders } from './rows.js';

/** The prefix of logical messages that capture routes. */
export const OUTBOX_PREFIX = 'headwater';

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
    return {
      topic: message.topic,
      key: message.key === null ? null : Buffer.from(message.key),
      value: message.value === null ? null : Buffer.from(message.value),
      headers,
      // A record without a key has no partition of its own: all of them keep their order on the first one.
      ...(message.key === null ? { partition: 0 } : {}),
    };
  } catch (error) {
    throw new CaptureError(
      'CDC_MESSAGE_INVALID',
      `logical message with prefix "${OUTBOX_PREFIX}" at ${at} is not an outbox message: ${errorMessage(error)}. ` +
        'It was not routed. Emit messages through the outbox only, or use another prefix.',
      { lsn: at },
      error,
    );
  }
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
