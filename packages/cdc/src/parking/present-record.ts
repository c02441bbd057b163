import { headerText, partitionOf } from '@headwater/core';
import type { Header, LogRecord, OutRecord } from '@headwater/core';
import { inPartition, invalidValue, routeText, rowJson, rowTexts } from '../rows.js';
import type { SourceTables } from '../source-tables.js';
import { RAW_VALUE } from './parking.js';

/** Says that the value is that of the row at this time, milliseconds since 1970, not at the change's. */
const REREAD = 'hw_reread';
/** So long after its commit a transaction is visible, whatever standbys it waited for. */
const VISIBLE_AFTER_MS = 86_400_000;

/**
 * The record of a change whose value was not kept, with the value that its row has now: never an older one than that of its transaction. Undefined: the row is
 * gone; that has come, or will come, as a change of its own. Rejects with CDC_VALUE_INVALID, with CDC_VALUE_OMITTED when it is no row of this capture, and
 * with the server's error. `partitions`: of its topic.
 */
export async function presentRecord(
  tables: SourceTables,
  parked: LogRecord,
  partitions: number,
  nowMs: number,
): Promise<OutRecord | undefined> {
  const { topic, key, headers } = parked;
  const text = (name: string) => headerText(headers, name);
  const tx = text('hw_tx') ?? '';
  const isRecent = nowMs - Number(text('hw_ts')) / 1_000 < VISIBLE_AFTER_MS;
  const xid = isRecent && /^\d+$/.test(tx) ? Number(tx) : undefined;
  const found = await tables.readByKey(text('hw_table') ?? topic, String(key), xid);
  if (found === undefined) return undefined;
  const { shape, row } = found;
  const left = headers.filter(([name]) => name !== RAW_VALUE[0] && name !== 'hw_unchanged');
  const reread: Header = [REREAD, Buffer.from(String(nowMs))];
  const route = routeText(shape, row);
  const partition = route === undefined ? undefined : partitionOf(Buffer.from(route), partitions);
  try {
    const value = Buffer.from(rowJson(shape, row));
    return inPartition({ topic, key, value, headers: [...left, reread] }, partition);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw invalidValue(shape, rowTexts(shape, row).refused, error);
  }
}
