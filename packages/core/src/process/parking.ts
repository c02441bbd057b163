import { textHeaders } from '../log/headers.js';
import type { Header, LogRecord, OutRecord } from '../log/log.js';
import type { ParkedUnit } from './parked-unit.js';
import { parkedTopicOf } from './processor.js';

/** A set-aside record or timer in the parked topic, the history for people: as it came, with where it came from and why it is here. */
export function parkedCopy(processor: string, partition: number, { unit, code, reason, bare }: ParkedUnit): OutRecord {
  const why = textHeaders({
    hw_parked_code: code,
    hw_parked_reason: reason,
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
