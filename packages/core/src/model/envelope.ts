import { textHeaders } from '../log/headers.js';
import type { Header } from '../log/log.js';

/** The CloudEvents attributes of a message (Kafka binding, binary mode) and its place in a conversation. */
export interface Envelope {
  readonly id: string;
  readonly type: string;
  readonly source: string;
  readonly subject: string;
  /** ISO 8601. */
  readonly time: string;
  /** What the whole conversation is about: the saga's id, for example. */
  readonly correlation?: string | undefined;
  /** The message that caused this one. */
  readonly causation?: string | undefined;
}

export function envelopeFields(envelope: Envelope): Record<string, string> {
  const fields: Record<string, string | undefined> = {
    ce_specversion: '1.0',
    ce_id: envelope.id,
    ce_source: envelope.source,
    ce_type: envelope.type,
    ce_time: envelope.time,
    ce_subject: envelope.subject,
    'content-type': 'application/json',
    hw_correlation: envelope.correlation,
    hw_causation: envelope.causation,
  };
  return Object.fromEntries(
    Object.entries(fields).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

export function envelopeHeaders(envelope: Envelope): Header[] {
  return textHeaders(envelopeFields(envelope));
}
