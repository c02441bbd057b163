import { errorCode, errorMessage } from '../errors/headwater.error.js';
import { textHeaders } from '../log/headers.js';
import type { Header, LogRecord, OutRecord } from '../log/log.js';
import { parkedTopicOf } from './processor.js';
import type { Unit, Verdict } from './suspects.js';

/** The entry that says that a key is parked. Its value is the offset of the record that parked it. */
export function parkedEntry(key: Buffer): string {
  return `p:${key.toString('base64')}`;
}

/** A set-aside record or timer, for an operator: as it came, with where it came from and why it is here. */
export function parkedCopy(processor: string, partition: number, unit: Unit, { error, bare }: Verdict): OutRecord {
  const why = textHeaders({
    hw_parked_code: errorCode(error) ?? 'HANDLER_FAILED',
    hw_parked_reason: errorMessage(error),
    hw_parked_value: bare ? 'omitted' : undefined,
  });
  const topic = parkedTopicOf(processor);
  if ('timer' in unit) {
    const headers = [...textHeaders({ hw_parked_timer: String(unit.timer.atMs) }), ...why];
    return { topic, partition, key: Buffer.from(unit.timer.id), value: null, headers };
  }
  const { record } = unit;
  const origin = originOf(record);
  return bare
    ? { topic, partition, key: record.key, value: null, headers: [...origin, ...why] }
    : { topic, partition, key: record.key, value: record.value, headers: [...record.headers, ...origin, ...why] };
}

function originOf({ topic, partition, offset }: LogRecord): Header[] {
  return textHeaders({
    hw_parked_topic: topic,
    hw_parked_partition: String(partition),
    hw_parked_offset: String(offset),
  });
}
