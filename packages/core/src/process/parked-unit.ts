import { errorCode, errorMessage } from '../errors/headwater.error.js';
import type { LogRecord } from '../log/log.js';
import type { Unit, Verdict } from './suspects.js';

/** A record or timer as it was set aside, with why. */
export interface ParkedUnit {
  readonly unit: Unit;
  readonly code: string;
  readonly reason: string;
  /** The log refused the value's copy: it stands at its origin only, and can be replaced or dropped, not handled again. */
  readonly bare: boolean;
}

/**
 * What is parked forms sequences, each in order: the records of one key, the timers of one id, a record without key alone. The names of
 * these begin with a colon, which base64 does not contain.
 */
export function sequenceOf(unit: Unit): string {
  if ('timer' in unit) return timerSequence(unit.timer.id);
  const { key, topic, partition, offset } = unit.record;
  return key === null ? `:record:${topic}/${partition}/${offset}` : key.toString('base64');
}

export const timerSequence = (id: string): string => `:timer:${id}`;

export function parkedUnit(unit: Unit, { error, bare }: Verdict): ParkedUnit {
  return { unit, code: errorCode(error) ?? 'HANDLER_FAILED', reason: errorMessage(error), bare };
}

/** The fields as JSON behind their length, then the value as it came: a value of any bytes costs its own size. */
export function encodeParkedUnit({ unit, code, reason, bare }: ParkedUnit): Buffer {
  const why = { code, reason, ...(bare ? { bare } : {}) };
  if ('timer' in unit) return framed({ ...why, timer: unit.timer, partition: unit.partition }, null);
  const { record } = unit;
  const { topic, partition, offset, timestamp } = record;
  const headers = record.headers.map(([name, value]) => [name, base64(value)] as const);
  const value = bare ? null : record.value;
  const record64 = { topic, partition, offset, timestamp, key: base64(record.key), headers, tombstone: value === null };
  return framed({ ...why, record: record64 }, value);
}

export function decodeParkedUnit(bytes: Buffer): ParkedUnit {
  const length = bytes.readUInt32BE(0);
  const fields = JSON.parse(bytes.toString('utf8', 4, 4 + length)) as Fields;
  const { code, reason, bare = false } = fields;
  if ('timer' in fields) return { unit: { timer: fields.timer, partition: fields.partition }, code, reason, bare };
  const { tombstone, key, headers, ...place } = fields.record;
  const record: LogRecord = {
    ...place,
    key: bytesOf(key),
    value: tombstone ? null : bytes.subarray(4 + length),
    headers: headers.map(([name, value]) => [name, bytesOf(value)] as const),
  };
  return { unit: { record }, code, reason, bare };
}

interface RecordFields {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timestamp: number;
  readonly key: string | null;
  readonly headers: readonly (readonly [name: string, value: string | null])[];
  readonly tombstone: boolean;
}
type Fields = { readonly code: string; readonly reason: string; readonly bare?: boolean } & (
  | { readonly timer: { readonly id: string; readonly atMs: number }; readonly partition: number }
  | { readonly record: RecordFields }
);

function framed(fields: Fields, value: Buffer | null): Buffer {
  const text = Buffer.from(JSON.stringify(fields));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat(value === null ? [length, text] : [length, text, value]);
}

const base64 = (bytes: Buffer | null): string | null => (bytes === null ? null : bytes.toString('base64'));
const bytesOf = (text: string | null): Buffer | null => (text === null ? null : Buffer.from(text, 'base64'));
