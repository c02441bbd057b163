import { tmpdir } from 'node:os';
import { systemClock } from '@headwater/core';
import type { Clock, Log, MessageClass, TopicSpec } from '@headwater/core';
import type { ColumnRule } from './column-rules.js';
import { positionTopicOf } from './own-topics.js';
import { parkingTopics } from './parking/parked-topics.js';
import { formatTableName, parseTableName } from './table-name.js';

export interface CapturedTable {
  /** `schema.table` as the catalog spells it; a part with a dot or a quote in it stands in double quotes: `"a.b".c`. */
  readonly table: string;
  readonly topic: string;
  /**
   * Default: the primary key, else the columns of the identity index. Others need REPLICA IDENTITY FULL, and should be unique and NOT NULL: rows that share a key
   * are one to the topic (a DELETE of one is a tombstone for all), and a row with NULL in its key stops capture.
   */
  readonly keyColumns?: readonly string[];
  /**
   * Several tables may share a topic when each has this: the key of a record is then a JSON array of the table's name and the key columns, `["public.orders","7"]`.
   * Fixed for a topic's life. Default false: each table has a topic of its own.
   */
  readonly keyWithTable?: boolean;
  /**
   * Columns that choose the partition in place of the key: murmur2 of their text, as of a record with that key (NULL counts as the empty text), so that rows lie beside
   * those of a table with that key. The key stays. The replica identity has to hold them: FULL, or an index. A row whose columns change leaves a tombstone where it was; a
   * reader of several partitions takes the greater `hw_lsn`, `hw_seq` for the newer. Fixed for a topic's life. Default: the key.
   */
  readonly partitionBy?: readonly string[];
  /** Rules for single columns (not of the key): what of them is published. Default: all of it. */
  readonly columns?: Readonly<Record<string, ColumnRule>>;
  /**
   * Only these columns leave the server, as a column list of the publication; the rest is absent, and so is a column added later. Must hold the
   * replica identity. Default: all columns, also those added later. To hide single ones for good, better: `columns`.
   */
  readonly only?: readonly string[];
  /**
   * SQL condition: only rows that fulfil it are published, as a row filter of the publication. A row that leaves it becomes a tombstone. It may
   * read what the replica identity holds. Default: all rows.
   */
  readonly where?: string;
  /**
   * A large value that an update left alone is not in the WAL (unless the table has REPLICA IDENTITY FULL). `reread` (default): it is read again by key; then it
   * may be newer than its record, and the stream waits for a query. `mark`: it is left out and named in the header `hw_unchanged`.
   */
  readonly toast?: 'reread' | 'mark';
  /**
   * A class whose class-validator rules every row of the table must fulfil; what does not is refused (`onRefused`). A column that is absent is absent for the
   * rules too. Each row is decoded and checked, which costs several times what capture itself does with it. Default: rows are not looked at.
   */
  readonly contract?: MessageClass;
}

/** How missing topics are made, compacted always. Existing ones are verified: capture refuses to run with others (LOG_TOPIC_MISMATCH). */
export interface CreatedTopics {
  /** Of the topics of tables; fixed for a topic's life. */
  readonly partitions: number;
  /** Default: the brokers' own. */
  readonly replicationFactor?: number;
}

/** What capture tells about itself while it runs. */
export interface CaptureLogger {
  info(message: string): void;
  warn(message: string): void;
}

export interface CaptureOptions {
  /** Names slot, publication, position and transactional id. Letters, digits, `_`. */
  readonly name: string;
  readonly connectionString: string;
  readonly log: Log;
  readonly tables: readonly CapturedTable[];
  /** Given: the topics of the tables and of the position are made when missing. Default: those of the tables must exist. */
  readonly topics?: CreatedTopics;
  /** Default `headwater_<name>`. */
  readonly slot?: string;
  /**
   * From Postgres 17 on: makes the slot one that standbys with `sync_replication_slots` have too, so that capture goes on after one of them
   * is promoted. Name them in the primary's `synchronized_standby_slots`, or what was published may be ahead of the one promoted
   * (CDC_TIMELINE_DIVERGED). Turn it off where standbys must not hold WAL for this capture. Concerns slots made from now on. Default true.
   */
  readonly failoverSlot?: boolean;
  /** Default `headwater_<name>`; made and altered to publish exactly `tables`. */
  readonly publication?: string;
  /**
   * `initial`: a snapshot when there is no position yet, and of every table that is added later. `never`: changes from now on. `only`: a
   * snapshot, and the changes while it is taken; then slot and publication are dropped.
   * `when-needed`: as `initial`, and again whenever slot and position no longer fit, instead of a refusal.
   */
  readonly snapshot: 'initial' | 'never' | 'only' | 'when-needed';
  /** The key of the column rule `hash`. Keep it as long as the topics: another one gives other hashes. */
  readonly hashKey?: string;
  /** `stored` (Postgres 18): generated columns that are stored are published, in snapshot and stream alike. Default `none`: they are absent. */
  readonly generatedColumns?: 'none' | 'stored';
  /**
   * What a TRUNCATE of captured tables becomes. `stop` (default): capture halts, nothing of its transaction is published. `tombstones`: a tombstone with
   * `hw_op` `t` for every live key, for which the topic is read while the stream waits, and the keys of each open transaction are held in memory.
   * `marker`: in each partition one tombstone with the empty key; its readers must know that all keys of the table before it are gone.
   */
  readonly truncate?: 'stop' | 'tombstones' | 'marker';
  /**
   * What becomes of a change that its topic does not take (its record is above `max.message.bytes`, measured before compression), that breaks its
   * contract, or holds a value that its type never prints. `halt` (default): capture halts before its transaction. `park`: it is set aside, with all that
   * follows on its key, in the same log transaction as the rest of its source transaction; everything else goes on. See `headwater parked`, under
   * `cdc.<name>`. What is parked already stays so under either.
   */
  readonly onRefused?: 'halt' | 'park';
  /** Whether logical messages with the prefix `headwater` are routed to their topics. */
  readonly outbox: boolean;
  /** Default `headwater.cdc.<name>.position`. */
  readonly positionTopic?: string;
  /**
   * A compacted topic of one partition, made when missing, that holds the version of each captured table: columns, types and key, and from which LSN
   * on. Default: none is written. Give it when readers must know types, or when a column came.
   */
  readonly schemasTopic?: string;
  /**
   * A topic of one partition with `cleanup.policy=delete`, made when missing, for this capture alone: a record at the end of each source transaction that has put records
   * into topics, in the same log transaction and in commit order, with its id (also its key), commit LSN and time, and how many records, in all and by topic. Default: none is
   * written. Give it when readers must know that they have a transaction whole. It is kept as long as the brokers keep such topics (`retention.ms`).
   */
  readonly transactionsTopic?: string;
  /** Default `headwater.cdc.<name>`. */
  readonly transactionalId?: string;
  /** The broker aborts a log transaction open longer than this; raise it for source transactions of millions of rows. Default 60,000. */
  readonly transactionTimeoutMs?: number;
  /** Bytes of records in one log transaction under load; a larger source transaction is appended in parts. Default 4 MiB. */
  readonly maxBatchBytes?: number;
  /** Default 10,000. */
  readonly maxBatchRows?: number;
  /** Rows a snapshot reads at once; fewer when they are wide. Default 5,000. */
  readonly snapshotChunkRows?: number;
  /** Sessions in which snapshots read, tables and stretches of large tables at the same time. Default 2. */
  readonly snapshotWorkers?: number;
  /** Bytes received and not yet published at which the socket is paused. Default 16 MiB. */
  readonly maxQueuedBytes?: number;
  /**
   * `on`: PostgreSQL sends a transaction above its `logical_decoding_work_mem` while it is still open, and capture keeps it, encrypted, on its own disk until
   * it commits: the server decodes and sends nothing of it at the commit. Nothing of it is published before. Turn it on for transactions of
   * millions of rows. Default `off`: the server keeps them, and sends each whole at its commit.
   */
  readonly streaming?: 'off' | 'on';
  /** Where `streaming` keeps what is not committed beyond 1 MiB, in a directory of its own. Only the owner of the slot writes there. Default: the system's for temporary files. */
  readonly spoolDirectory?: string;
  /** Silence from the server that counts as loss. Default 30,000. */
  readonly inboundTimeoutMs?: number;
  /** Called for every error, those that lead to a reconnect included. */
  readonly onError?: (error: unknown) => void;
  readonly logger?: CaptureLogger;
  /** All waiting and all time of capture. Default: the system's; a simulation gives a virtual one. */
  readonly clock?: Clock;
}

export const CAPTURE_DEFAULTS = {
  failoverSlot: true,
  transactionTimeoutMs: 60_000,
  maxBatchBytes: 4 * 1024 * 1024,
  maxBatchRows: 10_000,
  snapshotChunkRows: 5_000,
  snapshotWorkers: 2,
  maxQueuedBytes: 16 * 1024 * 1024,
  streaming: 'off',
  spoolDirectory: tmpdir(),
  inboundTimeoutMs: 30_000,
  generatedColumns: 'none',
  truncate: 'stop',
  onRefused: 'halt',
  onError: () => {},
  logger: { info: () => {}, warn: () => {} },
  clock: systemClock,
} as const;

export type ResolvedOptions = Required<Omit<CaptureOptions, Optional>> & Pick<CaptureOptions, Optional>;

/** Left out they stay left out: there is no default for them. */
type Optional = 'topics' | 'hashKey' | 'schemasTopic' | 'transactionsTopic';

export function resolveOptions(options: CaptureOptions): ResolvedOptions {
  return Object.freeze({
    ...CAPTURE_DEFAULTS,
    slot: `headwater_${options.name}`,
    publication: `headwater_${options.name}`,
    positionTopic: positionTopicOf(options.name),
    transactionalId: `headwater.cdc.${options.name}`,
    ...(Object.fromEntries(
      Object.entries(options).filter(([, value]) => value !== undefined),
    ) as unknown as CaptureOptions),
    tables: options.tables.map((table) => ({ ...table, table: canonical(table.table) })),
  });
}

/** One text per table, whatever was quoted that needs no quotes. What cannot be read is refused with all else that is wrong with the tables. */
function canonical(table: string): string {
  const name = parseTableName(table);
  return name === undefined ? table : formatTableName(name);
}

/** The topics this capture makes or verifies before anything is published. */
export function topicsOf(options: ResolvedOptions): readonly TopicSpec[] {
  const { name, tables, topics, positionTopic, schemasTopic, transactionsTopic, onRefused } = options;
  const replication = topics?.replicationFactor === undefined ? {} : { replicationFactor: topics.replicationFactor };
  const spec = (topic: string | undefined, partitions: number, cleanupPolicy: TopicSpec['cleanupPolicy']) =>
    topic === undefined ? [] : [{ topic, partitions, cleanupPolicy, ...replication }];
  const names = topics === undefined ? [] : [...new Set(tables.map(({ topic }) => topic))];
  const parking = onRefused === 'park' ? parkingTopics(name).map((topic) => ({ ...topic, ...replication })) : [];
  return [
    ...spec(positionTopic, 1, 'compact'),
    ...spec(schemasTopic, 1, 'compact'),
    ...spec(transactionsTopic, 1, 'delete'),
    ...parking,
    ...names.flatMap((topic) => spec(topic, topics!.partitions, 'compact')),
  ];
}

/** The topics that a capture with these options makes or verifies at its start. */
export function captureTopics(options: Omit<CaptureOptions, 'log'>): readonly TopicSpec[] {
  return topicsOf(resolveOptions(options as CaptureOptions));
}
