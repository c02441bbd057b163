import { errorCode, errorMessage } from '../errors/headwater.error.js';
import type { LogRecord, TopicPartition } from '../log/log.js';
import type { Sql } from '../postgres/database.js';

const PARK = `
  INSERT INTO headwater.parked (consumer, topic, partition, log_offset, record_key, record_value, headers, code, reason)
  VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9)`;

/** The identity of a key among the parked ones. */
export const parkedKey = (record: TopicPartition & { readonly key: Buffer | null }): string =>
  `${record.topic}/${record.key?.toString('base64') ?? ''}`;

/** Sets a record aside with its reason and its bytes as they were; headers and reason as texts. */
export async function park(sql: Sql, consumer: string, record: LogRecord, error: unknown): Promise<void> {
  const headers = JSON.stringify(
    record.headers.map(([name, value]) => [storable(name), value === null ? null : storable(value.toString('utf8'))]),
  );
  await sql.query(PARK, [
    consumer,
    record.topic,
    record.partition,
    record.offset,
    record.key,
    record.value,
    headers,
    errorCode(error) ?? 'HANDLER_FAILED',
    storable(errorMessage(error)),
  ]);
}

/** Postgres keeps no NUL in text or jsonb; a record that could not even be parked would stop its partition. */
const storable = (text: string): string => text.replaceAll('\u0000', '\ufffd');

/** The keys that are parked on these partitions; later records of them wait behind. */
export async function parkedKeys(
  sql: Sql,
  consumer: string,
  partitions: readonly TopicPartition[],
): Promise<Set<string>> {
  const { rows } = await sql.query<{ topic: string; partition: number; key: Buffer | null }>(
    `SELECT DISTINCT topic, partition, record_key AS key FROM headwater.parked WHERE consumer = $1 AND record_key IS NOT NULL`,
    [consumer],
  );
  const mine = new Set(partitions.map(({ topic, partition }) => `${topic}/${partition}`));
  return new Set(rows.filter((row) => mine.has(`${row.topic}/${row.partition}`)).map(parkedKey));
}
