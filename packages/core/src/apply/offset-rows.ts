import { HeadwaterError } from '../errors/headwater.error.js';
import type { PartitionOffset, TopicPartition } from '../log/log.js';
import type { Sql } from '../postgres/database.js';

/** Ownership of one partition by one owner: where to go on, and the epoch that every move of the offset must carry. */
export interface Claim extends PartitionOffset {
  readonly epoch: string;
}

const CLAIM = `
  INSERT INTO headwater.offsets AS o (consumer, topic, partition, next_offset, owner_epoch) VALUES ($1, $2, $3, $4, 1)
  ON CONFLICT (consumer, topic, partition) DO UPDATE SET owner_epoch = o.owner_epoch + 1
  RETURNING next_offset::text AS next, owner_epoch::text AS epoch`;

// A1: the compare-and-set. Zero rows: another owner has claimed the partition, or has moved it.
const MOVE = `
  UPDATE headwater.offsets SET next_offset = $4
  WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset = $5 AND owner_epoch = $6`;

/** Takes a partition over: from here on the previous owner's moves fail. `start` is used when it has no offset row yet. */
export async function claim(sql: Sql, consumer: string, partition: TopicPartition, start: number): Promise<Claim> {
  const { rows } = await sql.query<{ next: string; epoch: string }>(CLAIM, [
    consumer,
    partition.topic,
    partition.partition,
    start,
  ]);
  return { topic: partition.topic, partition: partition.partition, next: Number(rows[0]!.next), epoch: rows[0]!.epoch };
}

/** Moves a claimed offset. Throws APPLY_ZOMBIE when the claim is no longer the newest: the caller's transaction must roll back. */
export async function move(sql: Sql, consumer: string, held: Claim, next: number): Promise<Claim> {
  const { rowCount } = await sql.query(MOVE, [consumer, held.topic, held.partition, next, held.next, held.epoch]);
  if (rowCount !== 1) {
    throw new HeadwaterError(
      'APPLY_ZOMBIE',
      `${consumer} no longer owns ${held.topic}/${held.partition} at offset ${held.next}: another instance took it over. Nothing was written; this instance lets go.`,
      { retryable: true, facts: { consumer, topic: held.topic, partition: held.partition, epoch: held.epoch } },
    );
  }
  return { ...held, next };
}
